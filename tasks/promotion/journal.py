"""The journal of moves: a row before MLflow is asked, closed together with the ledger's line, and told once it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.promotion import ledger
from tasks.promotion.database import Connection
from tasks.promotion.ledger import Alias, Kind, Line

FIELDS = "id, model, alias, kind, from_version, to_version, actor, reason, evidence"


@dataclass(frozen=True)
class Intent:
    """A row of the journal: what somebody is about to do, or did."""

    id: int
    model: str
    alias: Alias
    kind: Kind
    from_version: str | None
    to_version: str | None
    actor: str
    reason: str
    evidence: Mapping[str, str]

    def line(self) -> Line:
        return Line(
            0, "", self.model, self.alias, self.kind, self.from_version, self.to_version, self.actor, self.reason,
            self.evidence, "",
        )  # fmt: skip


def open_intent(connection: Connection, line: Line, seconds: float) -> Intent:
    """`seconds` from now the call to MLflow that follows has either happened or never will."""
    columns = FIELDS.removeprefix("id, ")
    row = connection.execute(
        f"INSERT INTO alias_journal ({columns}, deadline) VALUES ({'%s, ' * 8} "  # noqa: S608 - constants
        f"clock_timestamp() + make_interval(secs => %s)) RETURNING {FIELDS}",
        [*_values(line), seconds],
    ).fetchone()
    return Intent(*_row(row))


def _row(row: Any) -> Any:
    if row is None:
        raise RuntimeError("Postgres returned no row of the journal")
    return row


def _values(line: Line) -> list[Any]:
    versions = [line.from_version, line.to_version]
    return [line.model, line.alias, line.kind, *versions, line.actor, line.reason, json.dumps(dict(line.evidence))]


def open_intents(connection: Connection, model: str) -> list[tuple[Intent, float]]:
    """What was begun and not ended, with the seconds that are left until its deadline."""
    rows = connection.execute(
        f"SELECT {FIELDS}, extract(epoch FROM deadline - clock_timestamp())::float FROM alias_journal "  # noqa: S608 - constants
        "WHERE model = %s AND state = 'open' ORDER BY id",
        [model],
    ).fetchall()
    return [(Intent(*row[:-1]), row[-1]) for row in rows]


def close(connection: Connection, intent: Intent) -> Line:
    """It happened: the line and the journal's row in one transaction."""
    with connection.transaction():
        line = ledger.append(connection, intent.line())
        connection.execute(
            "UPDATE alias_journal SET state = 'done', ledger_id = %s, ledger_hash = %s WHERE id = %s",
            [line.id, line.hash, intent.id],
        )
    return line


def note(connection: Connection, line: Line) -> Line:
    """A line about something that MLflow is not asked for."""
    with connection.transaction():
        return close(connection, open_intent(connection, line, 0))


def abandon(connection: Connection, intent: Intent) -> None:
    """It did not happen and cannot happen any more."""
    connection.execute("UPDATE alias_journal SET state = 'abandoned' WHERE id = %s", [intent.id])


def untold(connection: Connection, model: str | None = None) -> list[Line]:
    """Lines whose event was not sent yet, oldest first."""
    columns = ", ".join(f"ledger.{name}" for name in ledger.COLUMNS.split(", "))
    rows = connection.execute(
        f"SELECT {columns} FROM ledger JOIN alias_journal ON ledger_id = ledger.id "  # noqa: S608 - constants
        "WHERE state = 'done' AND NOT told AND (%s::text IS NULL OR alias_journal.model = %s) ORDER BY ledger.id",
        [model, model],
    ).fetchall()
    return [ledger.line_of(row) for row in rows]


def told(connection: Connection, line: Line) -> None:
    connection.execute("UPDATE alias_journal SET told = true WHERE ledger_id = %s", [line.id])
