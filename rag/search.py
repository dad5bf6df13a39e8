"""Hybrid search: the nearest vectors and the matching words, fused and spread over documents in one SQL statement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import psycopg
from pgvector import Vector as PgVector
from psycopg import sql

from rag.chunk import Chunk, Hit
from rag.generation import Generation
from rag.schema import AS_READER, Connection, as_tenant
from rag.vectors import Vector

Mode = Literal["hybrid", "vector", "text"]
CANDIDATES = 40  # of each list, before fusion
WEIGHTS = {"hybrid": (0.7, 0.3), "text": (0.0, 1.0), "vector": (1.0, 0.0)}  # of the cosine, and of the share of words
PER_SOURCE = 5  # passages of one document before another document's come
EF_SEARCH = 100
_STATEMENTS = {
    name: re.sub(r"\s*--.*", "", (Path(__file__).with_name("sql") / f"{name}.sql").read_text())
    for name in ("search", "nearest")
}
_LONG_VECTOR = re.compile(r"\[[-+.,\de]{40,}\]")
_PREPARE = """
select set_config('hnsw.iterative_scan', %(scan)s, true), set_config('hnsw.ef_search', %(ef_search)s, true),
       set_config('plan_cache_mode', %(plan)s, true), set_config('random_page_cost', %(page)s, true)
"""
_SETTINGS = {
    "scan": "strict_order",  # a filter takes rows away, so the scan goes on until there are enough
    "ef_search": str(EF_SEARCH),
    "page": "1.1",  # an index that answers questions is in memory or on flash; else words are searched row by row
    "plan": "force_custom_plan",  # a plan for any filter is a bad plan for this one
}


@dataclass(frozen=True)
class Filter:
    """Only passages of these kinds, and of sources that begin so; empty means all. Never a tenant: the policy sees to that."""

    kinds: tuple[str, ...] = ()
    under: str = ""

    def condition(self) -> sql.Composed:
        parts = [sql.SQL("true")]
        parts += [sql.SQL("kind = any(%(kinds)s)")] if self.kinds else []
        parts += [sql.SQL("starts_with(source, %(under)s)")] if self.under else []
        return sql.SQL(" and ").join(parts)


EVERYTHING = Filter()


@dataclass(frozen=True)
class Query:
    """What is asked of the index. `vector` and `text` stand for the same question."""

    vector: Vector
    text: str
    k: int
    where: Filter = EVERYTHING
    mode: Mode = "hybrid"
    per_source: int = PER_SOURCE

    def parameters(self) -> dict[str, Any]:
        return {
            "vector": PgVector(self.vector).to_text(), "text": self.text, "k": self.k,
            "kinds": list(self.where.kinds), "under": self.where.under, "per_source": self.per_source,
            "candidates": max(self.k, CANDIDATES), "by_vector": self.mode != "text", "by_text": self.mode != "vector",
            "vector_weight": WEIGHTS[self.mode][0], "text_weight": WEIGHTS[self.mode][1],
        }  # fmt: skip


def search(conn: Connection, live: Generation, query: Query) -> tuple[Hit, ...]:
    """The `k` best passages, or all there are: neither a filter nor equal vectors make it fewer.

    `conn` is in autocommit. Raises psycopg.errors.UndefinedTable when another generation took the place of `live` meanwhile.
    """
    rows = _rows_at_once(conn, live, query)
    if len(rows) < query.k and query.mode != "text" and len(rows) < _matching(conn, live, query):
        # Equal vectors can cut the graph into islands that no scan gets across, and a scan ends after
        # hnsw.max_scan_tuples rows; reading every row that the filter leaves does not.
        with as_tenant(conn, live.tenant, reader=True):
            conn.execute("set local enable_indexscan = off")
            rows = _rows(conn, live, query)
    return tuple(_hit(*row) for row in rows)


def explain(conn: Connection, live: Generation, query: Query) -> str:
    """Postgres' own account of the search, run for it: plan, times, buffers."""
    statement = b"explain (analyze, buffers, costs off) " + _statement(live, query.where, query.mode == "vector")
    with as_tenant(conn, live.tenant, reader=True):
        _prepare(conn)
        rows = conn.execute(statement, query.parameters()).fetchall()
    return _LONG_VECTOR.sub("[…]", "\n".join(row[0] for row in rows))


def neighbours(conn: Connection, live: Generation, chunk_id: str, around: int = 2) -> tuple[Chunk, ...]:
    """The chunk with those before and after it in its document; empty where the tenant has no such chunk."""
    statement = live.fill(
        "select n.id, n.source, n.kind, n.headings, n.ordinal, n.line, n.text, n.digest from {table} as c "
        "join {table} as n using (source) where c.id = %s and abs(n.ordinal - c.ordinal) <= %s order by n.ordinal"
    )
    with as_tenant(conn, live.tenant, reader=True):
        rows = conn.execute(statement, (chunk_id, around)).fetchall()
    return tuple(_chunk(*row) for row in rows)


def _rows_at_once(conn: Connection, live: Generation, query: Query) -> list[tuple[Any, ...]]:
    """As `_rows` in a transaction of its own; all five statements go there together, so one wait is enough."""
    try:
        with conn.pipeline():
            conn.execute("begin read only")
            conn.execute(AS_READER, (live.tenant,))
            conn.execute(_PREPARE, _SETTINGS)
            found = conn.execute(_statement(live, query.where, query.mode == "vector"), query.parameters())
            conn.execute("commit")
            return found.fetchall()
    except psycopg.Error:
        conn.rollback()
        raise


def _rows(conn: Connection, live: Generation, query: Query) -> list[tuple[Any, ...]]:
    _prepare(conn)
    return conn.execute(_statement(live, query.where, query.mode == "vector"), query.parameters()).fetchall()


def _prepare(conn: Connection) -> None:
    conn.execute(_PREPARE, _SETTINGS)


@lru_cache(maxsize=256)
def _statement(live: Generation, where: Filter, vectors_alone: bool) -> bytes:
    """The same bytes for the same index and filter, so that psycopg and Postgres know them again."""
    text = _STATEMENTS["nearest" if vectors_alone else "search"]
    return live.fill(text, filter=where.condition(), name=sql.Literal(live.table_name)).as_bytes(None)


def _matching(conn: Connection, live: Generation, query: Query) -> int:
    statement = live.fill("select count(*) from {table} where {filter}", filter=query.where.condition())
    with as_tenant(conn, live.tenant, reader=True):
        row = conn.execute(statement, query.parameters()).fetchone()
    return int(row[0]) if row else 0


def _hit(*row: Any) -> Hit:
    *chunk, similarity, score, vector_rank, text_rank = row
    return Hit(_chunk(*chunk), similarity, score, vector_rank, text_rank)


def _chunk(
    chunk_id: str, source: str, kind: str, headings: list[str], ordinal: int, line: int, text: str, digest: str
) -> Chunk:
    return Chunk(chunk_id, source, kind, tuple(headings), ordinal, line, text, digest)
