"""The database's schema: the plain SQL files of `migrations/`, each applied once, in the order of their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

MIGRATIONS = Path(__file__).with_name("migrations")
Connection = psycopg.Connection[Any]

AS_OWNER = "select set_config('rag.tenant', %s, true)"
AS_READER = f"{AS_OWNER}, set_config('role', 'rag_reader', true)"
_APPLIED = """
create table if not exists schema_migration (
    name text primary key, sha256 text not null, applied timestamptz not null default now()
)
"""


class SchemaChanged(Exception):
    """The database was migrated by another file of the same name: take the release that made it, or a new database."""


def migrate(conn: Connection, folder: Path = MIGRATIONS) -> tuple[str, ...]:
    """Apply what is missing, all or nothing; returns the names applied. Raises SchemaChanged."""
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(hashtext('rag.schema'))")  # `create … if not exists` can race
        conn.execute(_APPLIED)
        known = dict(conn.execute("select name, sha256 from schema_migration").fetchall())
        files = {file.name: file.read_bytes() for file in sorted(folder.glob("*.sql"))}
        for name, content in files.items():
            if known.get(name, _sha256(content)) != _sha256(content):
                raise SchemaChanged(
                    f"{name} was applied with sha256 {known[name][:12]} and is {_sha256(content)[:12]} now; "
                    "a migration never changes once it is applied: add a new file, or use a new database"
                )
        new = {name: content for name, content in files.items() if name not in known}
        for name, content in new.items():
            conn.execute(content)
            conn.execute("insert into schema_migration (name, sha256) values (%s, %s)", (name, _sha256(content)))
    return tuple(new)


@contextmanager
def as_tenant(conn: Connection, tenant: str, *, reader: bool = False) -> Iterator[None]:
    """A transaction in which row-level security shows this tenant's rows alone; a reader may change nothing."""
    with conn.transaction():
        conn.execute(AS_READER if reader else AS_OWNER, (tenant,))
        yield


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
