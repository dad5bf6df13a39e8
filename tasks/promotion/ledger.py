"""The ledger: a chain of lines, each with the hash of the one before. Written by journal.py, read and checked here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tasks.promotion.database import Connection

Alias = Literal["candidate", "staging", "champion"]
ALIASES: tuple[Alias, ...] = ("candidate", "staging", "champion")
Kind = Literal[
    "move", "rollback", "put_back", "removed", "refused", "approval_requested", "approved", "denied", "approval_expired"
]
MOVES = ("move", "rollback", "put_back", "removed")  # after these the alias is where the line says
GENESIS = "0" * 64
COLUMNS = "id, at, model, alias, kind, from_version, to_version, actor, reason, evidence, previous, hash"


@dataclass(frozen=True)
class Line:
    """One line. `at` is UTC in ISO 8601; a version is None where the alias named none; `previous` is a line's hash."""

    id: int
    at: str
    model: str
    alias: Alias
    kind: Kind
    from_version: str | None
    to_version: str | None
    actor: str
    reason: str
    evidence: Mapping[str, str]
    previous: str
    hash: str = ""


@dataclass(frozen=True)
class Fault:
    """What is wrong at one line of the ledger."""

    id: int
    said: str


def line_hash(line: Line) -> str:
    """sha256 over the canonical JSON of every other column, the hash of the line before among them."""
    content = {**asdict(replace(line, hash="")), "evidence": dict(line.evidence)}
    del content["hash"]
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def append(connection: Connection, line: Line) -> Line:
    """The line as it was written: with its number, time and hashes. To be called in a transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('liftlock ledger chain', 0))")
    last = connection.execute("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    made = replace(line, id=number, at=now, previous=previous)
    made = replace(made, hash=line_hash(made))
    values = [*asdict(made).values()]
    values[9] = json.dumps(dict(made.evidence))
    connection.execute(f"INSERT INTO ledger ({COLUMNS}) VALUES ({', '.join(['%s'] * len(values))})", values)  # noqa: S608 - constants
    return made


def line_of(row: Sequence[Any]) -> Line:
    """From a row with COLUMNS."""
    at = row[1].astimezone(UTC).isoformat(timespec="microseconds")
    return Line(row[0], at, *row[2:])


def lines(connection: Connection, model: str | None = None) -> list[Line]:
    """Oldest first; of every model where none is named."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM ledger WHERE %s::text IS NULL OR model = %s ORDER BY id",  # noqa: S608 - constants
        [model, model],
    ).fetchall()
    return [line_of(row) for row in rows]


def position(connection: Connection, model: str, alias: Alias) -> Line | None:
    """The last line that says where the alias is."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM ledger WHERE model = %s AND alias = %s AND kind = ANY(%s) ORDER BY id DESC LIMIT 1",  # noqa: S608
        [model, alias, list(MOVES)],
    ).fetchone()
    return line_of(row) if row else None


def champions(of: Iterable[Line]) -> list[str]:
    """The versions one can go back through, the present champion last: a move puts one on, a rollback takes some off."""
    stack: list[str] = []
    for line in of:
        if line.alias != "champion" or line.kind not in ("move", "rollback", "put_back") or line.to_version is None:
            continue
        if line.kind == "rollback" and line.to_version in stack:
            while stack[-1] != line.to_version:
                stack.pop()
        elif stack[-1:] != [line.to_version]:
            stack.append(line.to_version)
    return stack


def chain_faults(found: Sequence[Line]) -> list[Fault]:
    """Changed, missing and inserted lines, as far as the chain by itself shows them."""
    faults: list[Fault] = []
    number, previous = 0, GENESIS
    for line in found:
        if line.id != number + 1:
            gone = f"line {number + 1} is" if line.id == number + 2 else f"lines {number + 1} to {line.id - 1} are"
            faults.append(Fault(line.id, f"{gone} missing"))
        elif line.previous != previous:
            faults.append(Fault(line.id, "it does not follow from the line before it"))
        if line_hash(line) != line.hash:
            faults.append(Fault(line.id, "its content does not have the hash that was written with it"))
        number, previous = line.id, line.hash
    return faults


def verify(connection: Connection, witnesses: Mapping[int, str] | None = None) -> tuple[int, list[Fault]]:
    """Number of lines and what is wrong with them. The journal knows the hash of every line, so a line that is missing at
    the end is found too; `witnesses` are further (number, hash) pairs, kept outside of Postgres.
    """
    found = lines(connection)
    kept = {line.id: line.hash for line in found}
    faults = chain_faults(found)
    rows = connection.execute("SELECT ledger_id, ledger_hash FROM alias_journal WHERE state = 'done'").fetchall()
    for number, digest in sorted({*((row[0], row[1]) for row in rows), *(witnesses or {}).items()}):
        if number not in kept:
            faults.append(Fault(number, "it was written and is missing"))
        elif kept[number] != digest:
            faults.append(Fault(number, "it has another hash than when it was written"))
    unique = {(fault.id, fault.said): fault for fault in faults}
    return len(found), sorted(unique.values(), key=lambda fault: fault.id)
