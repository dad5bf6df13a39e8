"""The one function that moves an alias: lock, finish what a crash left, compare, check evidence, journal, set, ledger, tell.

MLflow sets an alias last-writer-wins and keeps no history; everything else that a promotion promises is added here. A
crash between any two of these steps is mended by whoever moves, or reconciles, this model next (`finish`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.promotion import journal, ledger
from tasks.promotion.database import Connect, Connection, locked
from tasks.promotion.events import EventNotSent
from tasks.promotion.journal import Intent
from tasks.promotion.ledger import ALIASES, Alias, Kind, Line
from tasks.promotion.registry import SETTLED_SECONDS, Registry, RegistryRefused

POLL_SECONDS = 0.2
BYTES = ("adapter_sha256", "base_sha256", "modelcar", "fit_report_sha256")
Verify = Callable[[str, Alias, str, Mapping[str, str]], Mapping[str, str]]
log = logging.getLogger(__name__)


class AliasMoved(Exception):
    """Somebody else moved the alias since the caller looked; `now` is the version that it names."""

    def __init__(self, message: str, now: str | None = None) -> None:
        super().__init__(message)
        self.now = now


@dataclass(frozen=True)
class Wanted:
    """A move that is asked for; version None takes the alias away. `expected` is the version that the caller saw, None where there was no alias;
    `evidence` are digests that the caller claims, each of which is checked.
    """

    model: str
    alias: Alias
    version: str | None
    expected: str | None
    actor: str
    reason: str
    evidence: Mapping[str, str]
    kind: Kind = "move"

    def line(self, before: str | None, evidence: Mapping[str, str]) -> Line:
        return Line(
            0, "", self.model, self.alias, self.kind, before, self.version, self.actor, self.reason, evidence, ""
        )


@dataclass(frozen=True)
class Promoter:
    """What a move needs: the ledger's database, MLflow, who checks evidence, and who is told.

    `verify` gets model, alias, version and the claimed digests, reads the artifacts, and returns every digest that holds.
    """

    connect: Connect
    registry: Registry
    verify: Verify
    tell: Callable[[Line], None]
    settled: float = SETTLED_SECONDS

    def move(self, wanted: Wanted) -> Line | None:
        """The ledger's line; None where the alias is there already and the ledger says so.

        Raises AliasMoved, EvidenceRefused, PromotionBusy, RegistryRefused (nothing happened), and RegistryUnreachable or
        psycopg.OperationalError (not acknowledged: the next move or the reconciler finds out whether it happened).
        """
        _check_alias(wanted)
        seen: list[Line | None] = []

        def look(connection: Connection) -> None:
            seen.append(ledger.position(connection, wanted.model, wanted.alias))

        with locked(self.connect, wanted.model, look=look) as connection:
            last = ledger.position(connection, wanted.model, wanted.alias)
            if last is not None and last not in seen:  # moved while this one waited: MLflow need not be asked
                _compare(wanted, last.to_version)
            self._finish(connection, wanted.model)
            now = self.registry.alias(wanted.model, wanted.alias)
            last = ledger.position(connection, wanted.model, wanted.alias)
            written = last.to_version if last else None
            if now == wanted.version == written and not _rebuilt(last, wanted):
                self._tell(connection, wanted.model)
                return None
            _compare(wanted, now)
            evidence = self._evidence(wanted)
            before = written if now == wanted.version else now
            intent = journal.open_intent(connection, wanted.line(before, evidence), self.settled)
            if now != wanted.version:
                self._set(connection, intent)
            line = journal.close(connection, intent)
            self._tell(connection, wanted.model)
        return line

    def _evidence(self, wanted: Wanted) -> Mapping[str, str]:
        """What is put back is no promotion: it was one when it came there."""
        if wanted.version is None or wanted.kind == "put_back":
            return wanted.evidence
        return self.verify(wanted.model, wanted.alias, wanted.version, wanted.evidence)

    def finish(self, model: str) -> None:
        """End what a killed mover of this model began: a line for what happened, a mark on what did not; tell what was
        not told. Raises RegistryUnreachable, PromotionBusy.
        """
        with locked(self.connect, model) as connection:
            self._finish(connection, model)
            self._tell(connection, model)

    def note(self, line: Line) -> Line:
        """Write a line about something that MLflow is not asked for, such as an approval, and tell it."""
        with locked(self.connect, line.model) as connection:
            made = journal.note(connection, line)
            self._tell(connection, line.model)
        return made

    def _set(self, connection: Connection, intent: Intent) -> None:
        """Where MLflow says no, nothing happened. Where it does not answer, the intent stays open."""
        try:
            if intent.to_version is None:
                self.registry.delete_alias(intent.model, intent.alias)
            else:
                self.registry.set_alias(intent.model, intent.alias, intent.to_version)
        except RegistryRefused:
            journal.abandon(connection, intent)
            raise

    def _finish(self, connection: Connection, model: str) -> None:
        for intent, left in journal.open_intents(connection, model):
            if self._happened(intent, left):
                journal.close(connection, intent)
            else:
                journal.abandon(connection, intent)

    def _happened(self, intent: Intent, left: float) -> bool:
        """Whether the alias went where the intent says. A call that is still under way is waited for, `left` seconds."""
        until = time.monotonic() + left
        while self.registry.alias(intent.model, intent.alias) != intent.to_version:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _tell(self, connection: Connection, model: str) -> None:
        """An event that cannot be sent now is sent by the next move or by the reconciler."""
        for line in journal.untold(connection, model):
            try:
                self.tell(line)
            except EventNotSent as error:
                log.warning("line %d of the ledger: %s", line.id, error)
                return
            journal.told(connection, line)


def _check_alias(wanted: Wanted) -> None:
    if wanted.alias not in ALIASES:
        raise ValueError(f"alias {wanted.alias!r} of {wanted.model} is not kept here; use one of {', '.join(ALIASES)}")


def _rebuilt(last: Line | None, wanted: Wanted) -> bool:
    """Whether the version has other bytes than its last line says: then the line that names them is missing."""
    known = last.evidence if last else {}
    return any(known.get(name) != digest for name, digest in wanted.evidence.items() if name in BYTES)


def _compare(wanted: Wanted, now: str | None) -> None:
    if now not in (wanted.version, wanted.expected):
        raise AliasMoved(
            f"{wanted.model}@{wanted.alias} names version {now or 'none'}, expected {wanted.expected or 'none'}: somebody moved "
            f"it meanwhile. Look at `liftlock history {wanted.model}`, then run this again",
            now,
        )
