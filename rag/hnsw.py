"""The vector index, built after loading: once for all rows is many times faster than row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from rag.generation import Generation
from rag.schema import Connection, as_tenant

M, EF_CONSTRUCTION = 16, 160  # links of a row on each layer, and candidates while they are chosen
LOOK_SECONDS = 0.5
MAX_BUILD_BYTES = 2 << 30
_CREATE = (
    "create index if not exists {index} on {table} using hnsw (embedding {operators}) "
    f"with (m = {M}, ef_construction = {EF_CONSTRUCTION})"
)
_PROGRESS = "select tuples_done, tuples_total from pg_stat_progress_create_index where pid = %s and tuples_total > 0"


def build_bytes(rows: int, dimension: int) -> int:
    """Memory that holds the whole graph while it is built: vector, 2 m links of 16 bytes on layer 0, what an element costs."""
    return int(1.15 * rows * (dimension * 4 + 2 * M * 16 + 300)) + (64 << 20)


def build_hnsw(conn: Connection, generation: Generation, progress: Callable[[str, int, int], None]) -> None:
    """HNSW, full-text and lookup indexes of a loaded table, and its statistics. Done twice, the second does nothing."""
    with as_tenant(conn, generation.tenant):
        row = conn.execute(generation.fill("select count(*) from {table}")).fetchone()
        rows = int(row[0]) if row else 0
    memory = min(build_bytes(rows, generation.pins.dimension), MAX_BUILD_BYTES)
    with _watched(conn, rows, progress):
        try:
            _create(conn, generation, memory, workers=2)
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
            _create(conn, generation, memory, workers=0)  # parallel workers need the memory as shared memory
    for column, method in (("words", "gin"), ("source", "btree"), ("digest", "btree")):
        name = sql.Identifier(f"chunk_{generation.id}_{column}")
        conn.execute(
            generation.fill(f"create index if not exists {{index}} on {{table}} using {method} ({column})", index=name)
        )
    conn.execute(generation.fill("analyze {table}"))


def _create(conn: Connection, generation: Generation, memory: int, workers: int) -> None:
    with conn.transaction():
        conn.execute("select set_config('maintenance_work_mem', %s, true)", (f"{memory // 1024}kB",))
        conn.execute("select set_config('max_parallel_maintenance_workers', %s, true)", (str(workers),))
        operators = sql.SQL(f"{generation.pins.precision}_cosine_ops")
        conn.execute(generation.fill(_CREATE, index=generation.hnsw, operators=operators))


@contextmanager
def _watched(conn: Connection, rows: int, progress: Callable[[str, int, int], None]) -> Iterator[None]:
    """Say how far Postgres is, from a second connection, because the first one waits."""
    done = threading.Event()
    arguments: dict[str, Any] = {"conninfo": conn.info.dsn, "password": conn.info.password or None}
    watcher = threading.Thread(target=_watch, args=(arguments, conn.info.backend_pid, done, progress), daemon=True)
    progress("graph", 0, rows)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress("graph", rows, rows)


def _watch(
    arguments: dict[str, Any], pid: int, done: threading.Event, progress: Callable[[str, int, int], None]
) -> None:
    with psycopg.connect(**arguments, autocommit=True) as conn:
        while not done.wait(LOOK_SECONDS):
            if row := conn.execute(_PROGRESS, (pid,)).fetchone():
                progress("graph", *row)
