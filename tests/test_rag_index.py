"""The index in a real Postgres: what a second run writes, what a change replaces, what a broken run leaves."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest

from rag.corpus import Unreadable
from rag.generation import EmbedderMismatch, IndexBusy, NotIndexed, end_turn, find, require_live, take_turn
from rag.index import IndexResult, index
from rag.schema import SchemaChanged, migrate
from rag.vectors import EmbeddingInvalid, Vector
from tests.fix_rag import Connection, Store, WordEmbedder, cut

DOCUMENTS = {
    "gate.md": "# Gate\n\nA margin bounds the loss.\n\n# Verdict\n\nInconclusive means too few items.",
    "fit.md": "# Fit\n\nThe verdict shows its margin in MiB.",
    "rollback.md": "# Rollback\n\nOne command undoes a release.",
}


def rows(store: Store) -> dict[tuple[str, int], tuple[str, str]]:
    """What is stored where, and the transaction that last wrote each row."""
    found = store.conn.execute(store.live.fill("select source, ordinal, text, xmin::text from {table}")).fetchall()
    return {(source, ordinal): (text, xmin) for source, ordinal, text, xmin in found}


def tables(conn: Connection) -> set[str]:
    found = conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {name for (name,) in found} - {"schema_migration", "generation", "document"}


def test_a_second_run_embeds_nothing_and_writes_nothing(store: Store) -> None:
    assert store.index(DOCUMENTS) == IndexResult(3, 4, written=4, embedded=4, deleted=0, skipped=())
    before = rows(store)
    store.embedder.embedded.clear()
    assert store.index(DOCUMENTS) == IndexResult(3, 4, written=0, embedded=0, deleted=0, skipped=())
    assert rows(store) == before and store.embedder.embedded == []


def test_a_changed_document_replaces_exactly_its_changed_chunks(store: Store) -> None:
    store.index(DOCUMENTS)
    before = rows(store)
    store.embedder.embedded.clear()
    changed = DOCUMENTS | {"gate.md": DOCUMENTS["gate.md"].replace("too few", "not enough")}
    assert store.index(changed) == IndexResult(3, 4, written=1, embedded=1, deleted=1, skipped=())
    assert store.embedder.embedded == ["Verdict\n\n# Verdict\n\nInconclusive means not enough items."]
    assert {place for place, row in rows(store).items() if row != before[place]} == {("gate.md", 1)}
    assert tables(store.conn) == {f"chunk_{store.live.id}"}


def test_text_put_in_front_moves_the_rest_without_embedding_it(store: Store) -> None:
    store.index(DOCUMENTS)
    longer = DOCUMENTS | {"gate.md": "A new opening.\n\n" + DOCUMENTS["gate.md"]}
    assert store.index(longer) == IndexResult(3, 5, written=1, embedded=1, deleted=0, skipped=())
    found = store.conn.execute(store.live.fill("select ordinal, line, text from {table} where source = 'gate.md'"))
    assert sorted(found.fetchall()) == [(c.ordinal, c.line, c.text) for c in cut("gate.md", longer["gate.md"])]


def test_a_document_that_is_gone_goes_from_the_index(store: Store) -> None:
    store.index(DOCUMENTS)
    fewer = {source: text for source, text in DOCUMENTS.items() if source != "gate.md"}
    assert store.index(fewer) == IndexResult(2, 2, written=0, embedded=0, deleted=2, skipped=())
    assert {source for source, _ in rows(store)} == {"fit.md", "rollback.md"}
    assert store.index(DOCUMENTS) == IndexResult(3, 4, written=2, embedded=2, deleted=0, skipped=())


def test_a_passage_that_is_stored_already_is_not_embedded_for_another_document(store: Store) -> None:
    store.index(DOCUMENTS)
    copied = DOCUMENTS | {"copy.md": DOCUMENTS["fit.md"]}
    assert store.index(copied) == IndexResult(4, 5, written=1, embedded=0, deleted=0, skipped=())


def test_an_unreadable_document_is_named_and_what_was_stored_of_it_goes(store: Store) -> None:
    store.index(DOCUMENTS)

    def read(source: str) -> Any:
        if source == "fit.md":
            raise Unreadable("fit.md is empty")
        return cut(source, DOCUMENTS[source])

    pins = store.embedder.pins()
    result = index(store.conn, "default", DOCUMENTS | {"fit.md": ""}, read, pins, store.embedder.embed)
    assert result == IndexResult(2, 3, written=0, embedded=0, deleted=1, skipped=("fit.md is empty",))


def test_a_run_that_breaks_leaves_the_old_index_and_the_next_one_goes_on(store: Store) -> None:
    store.index(DOCUMENTS)
    before = rows(store)
    more = {f"{i}.md": f"Text number {i} of many." for i in range(300)}
    batches: list[int] = []

    def break_down(texts: Sequence[str]) -> list[Vector]:
        batches.append(len(texts))
        if len(batches) == 2:
            raise MemoryError
        return store.embedder.embed(texts)

    with pytest.raises(MemoryError):
        store.index(more, embed=break_down)
    assert rows(store) == before and store.search("One command undoes", 1)[0].chunk.source == "rollback.md"
    assert store.index(more) == IndexResult(300, 300, written=300, embedded=44, deleted=4, skipped=())
    assert tables(store.conn) == {f"chunk_{store.live.id}"}


def test_what_a_killed_run_left_of_a_text_that_changed_since_is_not_indexed(store: Store) -> None:
    def break_down(texts: Sequence[str]) -> list[Vector]:
        if len(texts) < 256:
            raise MemoryError
        return store.embedder.embed(texts)

    first = {f"{i:03}.md": f"Text number {i} of many." for i in range(300)}
    with pytest.raises(MemoryError):
        store.index(first, embed=break_down)
    store.index(first | {"000.md": "Quite another text."})
    assert [text for (source, _), (text, _) in rows(store).items() if source == "000.md"] == ["Quite another text."]


def test_another_embedder_is_built_beside_and_takes_the_place_at_once(store: Store) -> None:
    store.index(DOCUMENTS)
    first = store.live
    other = Store(store.conn, WordEmbedder(revision="2", dimension=128))
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> list[Vector]:
        seen.append(store.search("One command undoes", 1)[0].chunk.source)
        return other.embedder.embed(texts)

    assert other.index(DOCUMENTS, embed=embed) == IndexResult(3, 4, written=4, embedded=4, deleted=4, skipped=())
    assert seen == ["rollback.md"] and other.live.id != first.id
    assert tables(store.conn) == {f"chunk_{other.live.id}"}
    with pytest.raises(EmbedderMismatch, match=r"words \(revision 2, dimension 128\), not of words \(revision 1"):
        require_live(store.conn, "default", "words", "1", 384)


def test_another_way_to_cut_makes_a_new_generation_without_embedding_what_stays(store: Store) -> None:
    store.index(DOCUMENTS)
    finer = Store(store.conn, store.embedder, precision="halfvec")
    assert finer.index(DOCUMENTS).embedded == 0
    assert finer.search("One command undoes", 1)[0].chunk.source == "rollback.md"


def test_two_runs_at_once_embed_each_chunk_once(database: str) -> None:
    both_connected = threading.Barrier(2)

    def run() -> IndexResult:
        with psycopg.connect(database, autocommit=True) as own:
            store = Store(own)

            def embed_slowly(texts: Sequence[str]) -> list[Vector]:
                time.sleep(0.3)
                return store.embedder.embed(texts)

            both_connected.wait()
            return store.index(DOCUMENTS, embed=embed_slowly)

    with ThreadPoolExecutor() as pool:
        results = [run.result() for run in [pool.submit(run), pool.submit(run)]]
    assert sorted(result.embedded for result in results) == [0, 4]


def test_a_run_that_waits_too_long_for_another_says_so(database: str, conn: Connection) -> None:
    migrate(conn)
    take_turn(conn, "default")
    with psycopg.connect(database, autocommit=True) as second:
        take_turn(second, "other")
        with pytest.raises(IndexBusy, match=r"documents of default for more than 1 s"):
            take_turn(second, "default", wait_seconds=1)
        end_turn(conn, "default")
        take_turn(second, "default", wait_seconds=1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full(384, np.nan, np.float32), "a vector with NaN"),
        (np.full(384, np.inf, np.float32), "NaN or infinity"),
        (np.zeros(384, np.float32), "a vector of zeros"),
        (np.ones(768, np.float32), r"a vector of shape \(768,\)"),
    ],
)
def test_a_vector_that_is_none_is_refused_and_nothing_changes(store: Store, bad: Vector, message: str) -> None:
    store.index(DOCUMENTS)
    before = rows(store)
    with pytest.raises(EmbeddingInvalid, match=message):
        store.index({"new.md": "Text."}, embed=lambda texts: [bad for _ in texts])
    assert rows(store) == before


def test_fewer_vectors_than_texts_are_refused(store: Store) -> None:
    with pytest.raises(EmbeddingInvalid, match="0 vectors for 4 texts"):
        store.index(DOCUMENTS, embed=lambda texts: [])
    assert find(store.conn, "default", "live") is None


def test_without_an_index_there_is_nothing_to_search(conn: Connection) -> None:
    with pytest.raises(NotIndexed, match="default has no index"):
        require_live(conn, "default", "words", "1", 384)


def test_migrations_run_once_and_a_changed_one_is_refused(conn: Connection, tmp_path: Any) -> None:
    (tmp_path / "001_a.sql").write_text("create table a (x integer)")
    assert migrate(conn, tmp_path) == ("001_a.sql",)
    (tmp_path / "002_b.sql").write_text("create table b (x integer)")
    assert migrate(conn, tmp_path) == ("002_b.sql",)
    assert migrate(conn, tmp_path) == ()
    (tmp_path / "001_a.sql").write_text("create table a (y integer)")
    with pytest.raises(SchemaChanged, match=r"001_a\.sql was applied with sha256"):
        migrate(conn, tmp_path)


def test_the_first_release_s_tables_give_way(conn: Connection, store: Store) -> None:
    conn.execute("create table chunk (id text); create table index_meta (embedder text)")
    store.index(DOCUMENTS)
    assert tables(conn) == {f"chunk_{store.live.id}"}
