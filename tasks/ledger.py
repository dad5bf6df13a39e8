"""The one function that moves an alias, and the ledger of its moves in Postgres.

MLflow sets an alias last-writer-wins and keeps no history. Here a move holds an advisory lock on the model's name, compares
with what the caller saw, sets, and appends. A crash between setting and appending leaves an alias without its line: the
next run of the same move finds the alias in place and appends the line that is missing.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import mlflow
import psycopg
from mlflow.exceptions import MlflowException

Alias = Literal["candidate", "staging", "champion"]
SCHEMA = Path(__file__).with_name("ledger.sql")


class AliasMoved(Exception):
    """Somebody else moved the alias since the caller looked."""


@dataclass(frozen=True)
class Move:
    """One line of the ledger. `from_version` is None for a first move."""

    model: str
    alias: str
    from_version: str | None
    to_version: str
    actor: str
    reason: str
    evidence: Mapping[str, str]


def alias_version(client: mlflow.MlflowClient, model: str, alias: Alias) -> str | None:
    """The version the alias names in MLflow, None where there is no such alias or model."""
    try:
        return str(client.get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def move_alias(
    dsn: str, model: str, alias: Alias, version: str, *, expected: str | None, reason: str, evidence: Mapping[str, str]
) -> None:
    """Point `alias` at `version` if it still points at `expected` (None: nowhere). Idempotent.

    Raises AliasMoved, ValueError (another alias), psycopg.OperationalError (the lock's connection is lost: nothing is said to be done).
    """
    if alias not in get_args(Alias):
        raise ValueError(f"alias {alias!r} of {model} is not kept here; use one of {', '.join(get_args(Alias))}")
    client = mlflow.MlflowClient()
    with _open(dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"liftlock/{model}"])
        now = alias_version(client, model, alias)
        if now != version:
            if now != expected:
                raise AliasMoved(
                    f"{model}@{alias} names version {now or 'none'}, expected {expected or 'none'}: somebody moved it meanwhile. "
                    "Look at it, then run the release again"
                )
            client.set_registered_model_alias(model, alias, version)
        last = _last(connection, model, alias)
        if last != version:
            before = now if now != version else last  # already in place: only the ledger knows where it came from
            _append(connection, Move(model, alias, before, version, getpass.getuser(), reason, evidence))


def _open(dsn: str) -> psycopg.Connection[Any]:
    """A connection to a database that has the ledger. The lock is for two first users at once: one's CREATE would fail."""
    connection = psycopg.connect(dsn)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('liftlock ledger', 0))")
        connection.execute(SCHEMA.read_text())
    return connection


def _last(connection: psycopg.Connection[Any], model: str, alias: str) -> str | None:
    row = connection.execute(
        "SELECT to_version FROM ledger WHERE model = %s AND alias = %s ORDER BY id DESC LIMIT 1", [model, alias]
    ).fetchone()
    return str(row[0]) if row else None


def _append(connection: psycopg.Connection[Any], move: Move) -> None:
    connection.execute(
        "INSERT INTO ledger (model, alias, from_version, to_version, actor, reason, evidence) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [
            move.model,
            move.alias,
            move.from_version,
            move.to_version,
            move.actor,
            move.reason,
            json.dumps(dict(move.evidence)),
        ],
    )


def moves(dsn: str, model: str) -> list[Move]:
    """The model's lines, oldest first."""
    with _open(dsn) as connection:
        rows = connection.execute(
            "SELECT model, alias, from_version, to_version, actor, reason, evidence FROM ledger WHERE model = %s ORDER BY id",
            [model],
        ).fetchall()
    return [Move(*row) for row in rows]
