"""The ledger's database: a connection that notices a lost network, its tables, and the lock on a model.

The lock belongs to the session. So it is lost with the connection, and a server that sees no answer from the client for
about ten seconds gives it to the next one; the client, for its part, cannot write a line without that connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

DATABASE = "liftlock"
SCHEMA = Path(__file__).with_name("schema.sql")
LOCK_SECONDS = 60
Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]
LIVENESS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "liftlock promotion",
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c TimeZone=UTC",
}


class PromotionBusy(Exception):
    """Another move of the same model holds the lock for longer than one waits."""


def connect(dsn: str) -> Connection:
    """In autocommit mode, to a database that has the tables."""
    connection: Connection = psycopg.connect(dsn, autocommit=True, **LIVENESS)  # type: ignore[arg-type]
    row = connection.execute("SELECT to_regclass('dataset_seen')").fetchone()
    if not row or row[0] is None:
        _migrate(connection)
    return connection


def _migrate(connection: Connection) -> None:
    """Two first users at once: the second waits, then finds everything there."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('liftlock ledger', 0))")
        connection.execute(SCHEMA.read_text())
        _import(connection)


def _import(connection: Connection) -> None:
    from tasks.promotion.journal import note  # both are built on this file
    from tasks.promotion.ledger import Line

    row = connection.execute("SELECT to_regclass('ledger_before_chain')").fetchone()
    if not row or row[0] is None:
        return
    found: list[tuple[Any, ...]] = connection.execute(
        "SELECT model, alias, 'move', from_version, to_version, actor, reason || ' (at ' || at || ')', evidence FROM ledger_before_chain ORDER BY id"
    ).fetchall()
    for model, alias, kind, before, after, actor, reason, evidence in found:
        note(connection, Line(0, "", model, alias, kind, before, after, actor, reason, evidence, ""))
    connection.execute("UPDATE alias_journal SET told = true")


@contextmanager
def locked(
    connect: Connect, model: str, seconds: int = LOCK_SECONDS, look: Callable[[Connection], None] = lambda _: None
) -> Iterator[Connection]:
    """The connection that holds the lock on the model's aliases; `look` is called before it waits. Raises PromotionBusy."""
    connection = connect()
    try:
        look(connection)
        connection.execute(f"SET lock_timeout = '{seconds}s'")
        try:
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"liftlock/{model}"])
        except LockNotAvailable:
            raise PromotionBusy(
                f"another move of {model}'s aliases has held the lock for {seconds} s, required: free; look at "
                f"`liftlock history {model}` and run this again"
            ) from None
        connection.execute("SET lock_timeout = 0")
        yield connection
    finally:
        connection.close()
