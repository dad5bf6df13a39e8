"""Make a tenant's index hold exactly these documents: embed what is new, write it, and switch when it is whole.

Chunks are committed batch by batch where no search looks yet, and become visible in one last transaction. So a run that
is killed leaves the old index answering, and the next one goes on with what was already embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from rag.chunk import Chunk, Limits, chunk_document
from rag.corpus import File, Unreadable
from rag.embed import Embedder
from rag.generation import Generation, Pins, Precision, begin, create_table, end_turn, find, switch, take_turn
from rag.hnsw import build_hnsw
from rag.schema import Connection, as_tenant, migrate
from rag.vectors import Vector, checked

BATCH = 256  # chunks embedded and sent at a time; bounds memory at 256 x dimension x 4 bytes of vectors
Embed = Callable[[Sequence[str]], Sequence[Vector]]
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much
_COLUMNS = "id, tenant, source, kind, headings, ordinal, line, text, digest, embedding"
_COPY = f"copy {{table}} ({_COLUMNS}) from stdin (format binary)"
_BRING = f"insert into {{table}} ({_COLUMNS}) select {_COLUMNS} from {{incoming}}"  # noqa: S608 - no outside text
_TYPES = ("text", "text", "text", "text", "text[]", "int4", "int4", "text", "text")
_MOVE = """
update {table} as chunk set ordinal = moved.ordinal, line = moved.line
from unnest(%s::text[], %s::integer[], %s::integer[]) as moved (id, ordinal, line) where chunk.id = moved.id
"""


@dataclass(frozen=True)
class IndexResult:
    """`chunks` is what the index now holds. `embedded` texts were sent to the embedder; `written` rows may reuse one."""

    documents: int
    chunks: int
    written: int
    embedded: int
    deleted: int
    skipped: tuple[str, ...]  # each names a document and says why


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def index(
    conn: Connection,
    tenant: str,
    documents: Mapping[str, str],
    cut: Callable[[str], Sequence[Chunk]],
    pins: Pins,
    embed: Embed,
    progress: Progress = quiet,
) -> IndexResult:
    """`documents` maps each source to the sha256 of its bytes; `cut` gives the chunks of one that is new or changed.

    A document that `cut` finds Unreadable is skipped by name, and what was stored of it goes. `conn` is in autocommit.
    Raises IndexBusy, SchemaChanged, EmbeddingInvalid, and what `embed` raises.
    """
    migrate(conn)
    register_vector(conn)
    with _turn(conn, tenant):
        run = _Run(conn, tenant, pins, embed, progress)
        live = find(conn, tenant, "live")
        if live is not None and live.pins == pins:
            return _update(run, live, documents, cut)
        return _build(run, live, documents, cut)


def index_files(
    conn: Connection,
    tenant: str,
    files: Sequence[File],
    model: Embedder,
    *,
    precision: Precision = "vector",
    progress: Progress = quiet,
) -> IndexResult:
    """The tenant's index holds exactly these files afterwards. Raises as `index` does."""
    by_source, limits = {file.source: file for file in files}, Limits()
    pins = Pins(model.name, model.revision, model.dimension, precision, limits.name)

    def cut(source: str) -> tuple[Chunk, ...]:
        return chunk_document(by_source[source].read(), model.count_tokens, limits)

    digests = {source: file.digest() for source, file in by_source.items()}
    return index(conn, tenant, digests, cut, pins, model.embed, progress)


@dataclass(frozen=True)
class _Run:
    conn: Connection
    tenant: str
    pins: Pins
    embed: Embed
    progress: Progress


@contextmanager
def _turn(conn: Connection, tenant: str) -> Iterator[None]:
    take_turn(conn, tenant)
    try:
        yield
    finally:
        end_turn(conn, tenant)


def _build(run: _Run, live: Generation | None, documents: Mapping[str, str], cut: Callable[[str], Any]) -> IndexResult:
    """A whole generation beside the live one, which answers until the last statement."""
    built = begin(run.conn, run.tenant, run.pins)
    chunks, skipped = _cut(documents, cut, run.progress)
    embedded = _fill(run, built, built.table, chunks, frozenset(), _vectors_of(live, run.pins))
    build_hnsw(run.conn, built, run.progress)
    with as_tenant(run.conn, run.tenant):
        deleted = _count(run.conn, live) if live else 0
        _note_documents(run.conn, built, {s: d for s, d in documents.items() if s not in skipped})
        switch(run.conn, built)
    return IndexResult(
        len(documents) - len(skipped), len(chunks), len(chunks), embedded, deleted, tuple(skipped.values())
    )


def _update(run: _Run, live: Generation, documents: Mapping[str, str], cut: Callable[[str], Any]) -> IndexResult:
    """Changed documents replace exactly their changed chunks; where nothing changed, nothing is written."""
    with as_tenant(run.conn, run.tenant):
        known = dict(
            run.conn.execute("select source, digest from document where generation = %s", (live.id,)).fetchall()
        )
    changed = {source: digest for source, digest in documents.items() if known.get(source) != digest}
    chunks, skipped = _cut(changed, cut, run.progress)
    gone = [source for source in known if source not in documents or source in skipped]
    read = {source: digest for source, digest in changed.items() if source not in skipped}
    if not read and not gone:
        return IndexResult(len(known), _tenants_count(run, live), 0, 0, 0, tuple(skipped.values()))
    stored = _places(run, live, list(read))
    with as_tenant(run.conn, run.tenant):
        create_table(run.conn, live, live.incoming)
    embedded = _fill(run, live, live.incoming, chunks, stored.keys(), live)
    with as_tenant(run.conn, run.tenant):
        deleted = _publish(run.conn, live, chunks, stored, [*gone, *read])
        run.conn.execute("delete from document where generation = %s and source = any(%s)", (live.id, [*gone, *read]))
        _note_documents(run.conn, live, read)
    written = sum(chunk_id not in stored for chunk_id in chunks)
    held = len(known.keys() - set(gone)) + len(read.keys() - known.keys())
    return IndexResult(held, _tenants_count(run, live), written, embedded, deleted, tuple(skipped.values()))


def _cut(
    documents: Mapping[str, str], cut: Callable[[str], Sequence[Chunk]], progress: Progress
) -> tuple[dict[str, Chunk], dict[str, str]]:
    """Chunks by id, and why a document was skipped by its source."""
    chunks: dict[str, Chunk] = {}
    skipped: dict[str, str] = {}
    for done, source in enumerate(documents):
        progress("read", done, len(documents))
        try:
            chunks |= {chunk.id: chunk for chunk in cut(source)}
        except Unreadable as fault:
            skipped[source] = str(fault)
    return chunks, skipped


def _fill(
    run: _Run,
    generation: Generation,
    table: sql.Identifier,
    chunks: Mapping[str, Chunk],
    stored: Any,
    vectors_from: Generation | None,
) -> int:
    """Bring the chunks that are not `stored` into `table`, and nothing else; returns how many texts were embedded."""
    with as_tenant(run.conn, run.tenant):
        held = {row[0] for row in run.conn.execute(generation.fill("select id from {table}", table)).fetchall()}
        surplus = [chunk_id for chunk_id in held if chunk_id not in chunks]
        if surplus:  # a killed run's, of documents that have changed since
            run.conn.execute(generation.fill("delete from {table} where id = any(%s)", table), (surplus,))
    new = [chunk for chunk in chunks.values() if chunk.id not in held and chunk.id not in stored]
    embedded = 0
    for start in range(0, len(new), BATCH):
        run.progress("embed", start, len(new))
        batch = new[start : start + BATCH]
        vectors = _known_vectors(run, vectors_from, batch)
        passages = {chunk.digest: chunk.passage for chunk in batch if chunk.digest not in vectors}
        found = checked(run.embed(list(passages.values())) if passages else [], list(passages.values()),
                        run.pins.dimension, run.pins.embedder)  # fmt: skip
        vectors |= dict(zip(passages, found, strict=True))
        embedded += len(passages)
        with as_tenant(run.conn, run.tenant):
            copy_chunks(run.conn, generation, table, batch, vectors)
    return embedded


def copy_chunks(
    conn: Connection, generation: Generation, table: sql.Identifier, chunks: Sequence[Chunk], vectors: Mapping[str, Any]
) -> None:
    """Binary COPY; `vectors` by the chunks' digests."""
    halved = generation.pins.precision == "halfvec"
    with conn.cursor().copy(generation.fill(_COPY, table)) as copy:
        copy.set_types((*_TYPES, generation.pins.precision))
        for chunk in chunks:
            vector = vectors[chunk.digest]
            copy.write_row((
                chunk.id, generation.tenant, chunk.source, chunk.kind, list(chunk.headings), chunk.ordinal, chunk.line,
                chunk.text, chunk.digest, HalfVector(vector) if halved else vector,
            ))  # fmt: skip


def _known_vectors(run: _Run, generation: Generation | None, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """A passage that is already stored, in whatever document, is not embedded again."""
    if generation is None:
        return {}
    query = "select distinct on (digest) digest, embedding::vector from {table} where digest = any(%s)"
    with as_tenant(run.conn, run.tenant):
        found = run.conn.execute(generation.fill(query), ([chunk.digest for chunk in chunks],)).fetchall()
    return {digest: vector.to_numpy() for digest, vector in found}


def _vectors_of(live: Generation | None, pins: Pins) -> Generation | None:
    return live if live is not None and live.pins.has_vectors_of(pins) else None


def _places(run: _Run, live: Generation, sources: list[str]) -> dict[str, tuple[int, int]]:
    query = live.fill("select id, ordinal, line from {table} where source = any(%s)")
    with as_tenant(run.conn, run.tenant):
        return {row[0]: (row[1], row[2]) for row in run.conn.execute(query, (sources,)).fetchall()}


def _publish(
    conn: Connection,
    live: Generation,
    chunks: Mapping[str, Chunk],
    stored: Mapping[str, tuple[int, int]],
    sources: list[str],
) -> int:
    """Inside the last transaction. Returns how many rows went."""
    gone = live.fill("delete from {table} where source = any(%s) and not id = any(%s)")
    deleted = conn.execute(gone, (sources, list(chunks))).rowcount
    moved = [chunk for chunk in chunks.values() if stored.get(chunk.id, (c := (chunk.ordinal, chunk.line))) != c]
    if moved:
        places = ([chunk.id for chunk in moved], [chunk.ordinal for chunk in moved], [chunk.line for chunk in moved])
        conn.execute(live.fill(_MOVE), places)
    conn.execute(live.fill(_BRING, incoming=live.incoming))
    conn.execute(sql.SQL("drop table {}").format(live.incoming))
    return deleted


def _note_documents(conn: Connection, generation: Generation, documents: Mapping[str, str]) -> None:
    conn.execute(
        "insert into document (generation, tenant, source, digest) select %s, %s, * from unnest(%s::text[], %s::text[])",
        (generation.id, generation.tenant, list(documents), list(documents.values())),
    )


def _count(conn: Connection, generation: Generation) -> int:
    row = conn.execute(generation.fill("select count(*) from {table}")).fetchone()
    return int(row[0]) if row else 0


def _tenants_count(run: _Run, generation: Generation) -> int:
    with as_tenant(run.conn, run.tenant):
        return _count(run.conn, generation)
