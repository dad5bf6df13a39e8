"""Generations of a tenant's index: which one answers, the one that is built beside it, and the switch.

The live generation answers until another is whole; a switch is one transaction. Nothing here embeds or reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import psycopg
from psycopg import sql

from rag.schema import Connection, as_tenant

Precision = Literal["vector", "halfvec"]
_CHUNKS = Path(__file__).with_name("sql") / "chunks.sql"
_FIND = "select id, embedder, revision, dimension, precision, chunking from generation where tenant = %s and state = %s"
_BEGIN = """
insert into generation (tenant, embedder, revision, dimension, precision, chunking, state)
values (%s, %s, %s, %s, %s, %s, 'building') returning id
"""


class NotIndexed(Exception):
    """There is nothing to search yet: index the documents first."""


class EmbedderMismatch(Exception):
    """The index holds another model's vectors: ask with that model, or index again with this one."""


class IndexBusy(Exception):
    """Another run indexes this tenant's documents: wait for it."""


@dataclass(frozen=True)
class Pins:
    """What must be the same for vectors to be comparable and for chunks to be reusable."""

    embedder: str
    revision: str
    dimension: int
    precision: Precision
    chunking: str

    def has_vectors_of(self, other: Pins) -> bool:
        return (self.embedder, self.revision, self.dimension) == (other.embedder, other.revision, other.dimension)


@dataclass(frozen=True)
class Generation:
    """One index of one tenant."""

    id: int
    tenant: str
    pins: Pins

    @property
    def table_name(self) -> str:
        return f"chunk_{self.id}"

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.table_name)

    @property
    def hnsw(self) -> sql.Identifier:
        return sql.Identifier(f"chunk_{self.id}_embedding")

    @property
    def incoming(self) -> sql.Identifier:
        """Where chunks of a live generation wait, committed but unseen, until the run that brings them is whole."""
        return sql.Identifier(f"chunk_{self.id}_incoming")

    def fill(self, template: str, table: sql.Identifier | None = None, **parts: sql.Composable) -> sql.Composed:
        """`template` is one of this package's own SQL texts."""
        return sql.SQL(template).format(
            table=table or self.table,
            vector=sql.SQL(self.pins.precision),
            dimension=sql.Literal(self.pins.dimension),
            **parts,
        )


def find(conn: Connection, tenant: str, state: Literal["live", "building"]) -> Generation | None:
    """The tenant's generation in that state; None also where the database has no schema yet."""
    with as_tenant(conn, tenant):
        if conn.execute("select to_regclass('generation')").fetchone() == (None,):
            return None
        row = conn.execute(_FIND, (tenant, state)).fetchone()
    return _generation(tenant, row) if row else None


def require_live(conn: Connection, tenant: str, embedder: str, revision: str, dimension: int) -> Generation:
    """Raises NotIndexed without an index, EmbedderMismatch unless its vectors are of these very weights."""
    live = find(conn, tenant, "live")
    if live is None:
        raise NotIndexed(f"{tenant} has no index; index its documents first: `liftlock index PATH --tenant {tenant}`")
    given = (embedder, revision, dimension)
    if given != (live.pins.embedder, live.pins.revision, live.pins.dimension):
        held = _describe(live.pins.embedder, live.pins.revision, live.pins.dimension)
        raise EmbedderMismatch(
            f"The index of {tenant} holds vectors of {held}, not of {_describe(*given)}; "
            "ask with the model it was made with, or index again: a second index is built beside it and takes its place"
        )
    return live


def begin(conn: Connection, tenant: str, pins: Pins) -> Generation:
    """The generation to build: the one a killed run left, where its pins are the same, else a new one."""
    left = find(conn, tenant, "building")
    if left is not None and left.pins == pins:
        return left
    with as_tenant(conn, tenant):
        if left is not None:
            _drop(conn, left)
        values = (tenant, pins.embedder, pins.revision, pins.dimension, pins.precision, pins.chunking)
        (number,) = cast(tuple[int], conn.execute(_BEGIN, values).fetchone())
        made = Generation(number, tenant, pins)
        create_table(conn, made, made.table)
    return made


def create_table(conn: Connection, generation: Generation, table: sql.Identifier) -> None:
    conn.execute(generation.fill(_CHUNKS.read_text(), table))


def switch(conn: Connection, built: Generation) -> None:
    """From one moment to the next `built` answers; the one it replaces goes. Call it inside the last transaction."""
    row = conn.execute(_FIND, (built.tenant, "live")).fetchone()
    if row:
        _drop(conn, _generation(built.tenant, row))
    conn.execute("update generation set state = 'live' where id = %s", (built.id,))


def take_turn(conn: Connection, tenant: str, wait_seconds: int = 15) -> None:
    """One writer a tenant, until `end_turn` or this connection ends. Raises IndexBusy."""
    conn.execute("set client_connection_check_interval = '1s'")  # so a killed run's server process ends soon, too
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", (f"{wait_seconds}s",))
            conn.execute("select pg_advisory_lock(hashtext('rag.index'), hashtext(%s))", (tenant,))
    except psycopg.errors.LockNotAvailable as error:
        raise IndexBusy(
            f"Another run has been indexing the documents of {tenant} for more than {wait_seconds} s; "
            "wait until it is done and try again"
        ) from error


def end_turn(conn: Connection, tenant: str) -> None:
    if not conn.broken:
        conn.execute("select pg_advisory_unlock(hashtext('rag.index'), hashtext(%s))", (tenant,))


def _drop(conn: Connection, generation: Generation) -> None:
    for table in (generation.table, generation.incoming):
        conn.execute(sql.SQL("drop table if exists {}").format(table))
    conn.execute("delete from generation where id = %s", (generation.id,))


def _generation(tenant: str, row: tuple[Any, ...]) -> Generation:
    return Generation(row[0], tenant, Pins(*row[1:]))


def _describe(name: str, revision: str, dimension: int) -> str:
    return f"{name} (revision {revision[:12]}, dimension {dimension})"
