"""The index in a real Postgres: what a second run writes, what a search returns, what is refused."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest

from rag.chunk import Chunk, Document, chunk_markdown
from rag.embed import Vector
from rag.store import EmbedderMismatch, IndexResult, NotIndexed, index, migrate, require_embedder, search
from tests.fix_rag import WordEmbedder, count_words

DOCUMENTS = {
    "gate.md": "# Gate\n\nA margin bounds the loss.\n\n# Verdict\n\nInconclusive means too few items.",
    "fit.md": "# Fit\n\nThe verdict shows its margin in MiB.",
    "rollback.md": "# Rollback\n\nOne command undoes a release.",
}
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def embedder(conn: Connection) -> WordEmbedder:
    embedder = WordEmbedder()
    migrate(conn, embedder)
    return embedder


def cut(documents: dict[str, str]) -> dict[str, tuple[Chunk, ...]]:
    return {source: chunk_markdown(Document(source, text), count_words, 30, 0) for source, text in documents.items()}


def rows(conn: Connection) -> dict[tuple[str, int], tuple[str, str]]:
    """What is stored where, and the transaction that last wrote each row."""
    found = conn.execute("select source, ordinal, text, xmin::text from chunk").fetchall()
    return {(source, ordinal): (text, xmin) for source, ordinal, text, xmin in found}


def test_a_second_run_embeds_nothing_and_writes_nothing(conn: Connection, embedder: WordEmbedder) -> None:
    assert index(conn, cut(DOCUMENTS), embedder.embed) == IndexResult(3, 4, embedded=4, deleted=0, unchanged=0)
    before = rows(conn)
    embedder.embedded.clear()
    migrate(conn, embedder)
    assert index(conn, cut(DOCUMENTS), embedder.embed) == IndexResult(3, 4, embedded=0, deleted=0, unchanged=4)
    assert rows(conn) == before and embedder.embedded == []


def test_a_changed_document_replaces_exactly_its_changed_chunks(conn: Connection, embedder: WordEmbedder) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    before = rows(conn)
    embedder.embedded.clear()
    changed = DOCUMENTS | {"gate.md": DOCUMENTS["gate.md"].replace("too few", "not enough")}
    assert index(conn, cut(changed), embedder.embed) == IndexResult(3, 4, embedded=1, deleted=1, unchanged=3)
    assert embedder.embedded == ["Verdict\n\n# Verdict\n\nInconclusive means not enough items."]
    assert {place for place, row in rows(conn).items() if row != before[place]} == {("gate.md", 1)}


def test_text_put_in_front_moves_the_rest_without_embedding_it(conn: Connection, embedder: WordEmbedder) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    longer = DOCUMENTS | {"gate.md": "A new opening.\n\n" + DOCUMENTS["gate.md"]}
    assert index(conn, cut(longer), embedder.embed) == IndexResult(3, 5, embedded=1, deleted=0, unchanged=4)
    texts = [text for (source, _), (text, _) in sorted(rows(conn).items()) if source == "gate.md"]
    assert texts == [chunk.text for chunk in cut(longer)["gate.md"]]


def test_a_document_that_is_gone_goes_from_the_index(conn: Connection, embedder: WordEmbedder) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    fewer = {source: text for source, text in DOCUMENTS.items() if source != "gate.md"}
    assert index(conn, cut(fewer), embedder.embed) == IndexResult(2, 2, embedded=0, deleted=2, unchanged=2)
    assert {source for source, _ in rows(conn)} == {"fit.md", "rollback.md"}


def test_a_run_that_breaks_leaves_the_old_index(conn: Connection, embedder: WordEmbedder) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    before = rows(conn)

    def break_down(texts: Sequence[str]) -> list[Vector]:
        raise MemoryError

    with pytest.raises(MemoryError):
        index(conn, cut({"new.md": "Quite another text."}), break_down)
    assert rows(conn) == before


def test_two_runs_at_once_embed_each_chunk_once(database: str, embedder: WordEmbedder) -> None:
    both_connected = threading.Barrier(2)

    def embed_slowly(texts: Sequence[str]) -> list[Vector]:
        time.sleep(0.3)
        return embedder.embed(texts)

    def run() -> IndexResult:
        with psycopg.connect(database) as own:
            both_connected.wait()
            migrate(own, embedder)
            return index(own, cut(DOCUMENTS), embed_slowly)

    with ThreadPoolExecutor() as pool:
        results = [run.result() for run in [pool.submit(run), pool.submit(run)]]
    assert sorted(result.embedded for result in results) == [0, 4]


@pytest.mark.parametrize("other", [{"revision": "2"}, {"name": "other"}, {"dimension": 768}])
def test_another_embedder_is_refused(conn: Connection, embedder: WordEmbedder, other: dict[str, Any]) -> None:
    with pytest.raises(EmbedderMismatch, match=r"holds vectors of words \(weights 1, dimension 384\), not of"):
        migrate(conn, WordEmbedder(**other))
    require_embedder(conn, embedder)


def test_a_first_embedder_of_another_dimension_is_refused_and_leaves_no_table(conn: Connection) -> None:
    with pytest.raises(EmbedderMismatch, match=r"dimension 384.*dimension 768"):
        migrate(conn, WordEmbedder(dimension=768))
    with pytest.raises(NotIndexed, match="index the documents"):
        require_embedder(conn, WordEmbedder())


def test_the_best_of_both_lists_comes_first(conn: Connection, embedder: WordEmbedder) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    first, second = search(conn, embedder.embed(["one command undoes"])[0], "one command undoes", 2)
    assert first.chunk == cut(DOCUMENTS)["rollback.md"][0]
    assert first.score == pytest.approx(2 / 61)  # rank 1 in each list: 1/(60 + 1) twice
    assert second.score == pytest.approx(1 / 62)  # rank 2 by vector, no word in common
    assert 1 >= first.similarity > second.similarity


def test_a_rare_word_is_found_where_the_vector_does_not_help(conn: Connection, embedder: WordEmbedder) -> None:
    documents = {f"{i}.md": f"Common words all over again, part {i}." for i in range(60)}
    index(conn, cut(documents | {"rare.md": "Beware of hnsw."}), embedder.embed)
    question_vector = embedder.embed(["Common words all over again"])[0]
    assert "rare.md" in {hit.chunk.source for hit in search(conn, question_vector, "Who warns of hnsw?", 2)}


@pytest.mark.parametrize("text", ["", "???", "a & b | !(c:*", "C:\\temp 'quoted' <-> \"x\"", "the of and"])
def test_any_question_text_is_only_text(conn: Connection, embedder: WordEmbedder, text: str) -> None:
    index(conn, cut(DOCUMENTS), embedder.embed)
    assert len(search(conn, embedder.embed(["margin"])[0], text, 3)) == 3


@pytest.mark.parametrize("k", [1, 40, 500, 2000, 3060])
def test_k_rows_come_back_where_most_vectors_are_equal(conn: Connection, embedder: WordEmbedder, k: int) -> None:
    texts = ["same"] * 3000 + [f"text {i}" for i in range(50)]
    index(conn, {"d.md": plain_chunks(texts)}, embedder.embed)
    prefer_index(conn)
    hits = search(conn, embedder.embed(["same"])[0], "", k)
    assert len(hits) == len({hit.chunk.id for hit in hits}) == min(k, 3050)
    assert scans(conn, "chunk_embedding") == 1


@pytest.fixture
def random_vectors(conn: Connection, embedder: WordEmbedder) -> Vector:
    """2000 vectors of length 1, shape (2000, 384), each stored with its row number as text."""
    vectors = np.random.default_rng(7).standard_normal((2000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index(conn, {"d.md": plain_chunks([str(i) for i in range(2000)])}, lambda texts: [vectors[int(t)] for t in texts])
    prefer_index(conn)
    return vectors


def test_hnsw_finds_what_an_exact_search_finds(conn: Connection, random_vectors: Vector) -> None:
    questions = np.random.default_rng(8).standard_normal((50, 384)).astype(np.float32)
    found = [{int(hit.chunk.text) for hit in search(conn, question, "", 10)} for question in questions]
    exact = [set(np.argsort(-random_vectors @ question)[:10].tolist()) for question in questions]
    assert scans(conn, "chunk_embedding") == 50  # so the numbers above are the index's, not a sequential scan's
    assert sum(len(a & b) for a, b in zip(found, exact, strict=True)) / 500 >= 0.95


def test_more_rows_than_one_scan_yields_come_from_the_index_too(conn: Connection, random_vectors: Vector) -> None:
    before = sequential_scans(conn)
    assert len(search(conn, random_vectors[0], "", 300)) == 300
    assert (scans(conn, "chunk_embedding"), sequential_scans(conn)) == (1, before)


def plain_chunks(texts: Sequence[str]) -> tuple[Chunk, ...]:
    return tuple(Chunk(f"{i:064x}", "d.md", (), i, text, "digest") for i, text in enumerate(texts))


def prefer_index(conn: Connection) -> None:
    """So few rows are read in sequence otherwise, and exactly."""
    conn.execute("analyze chunk")
    conn.execute("set random_page_cost = 0.1")


def scans(conn: Connection, index_name: str) -> int:
    conn.execute("select pg_stat_force_next_flush()")
    row = conn.execute("select idx_scan from pg_stat_user_indexes where indexrelname = %s", (index_name,)).fetchone()
    assert row is not None
    return int(row[0])


def sequential_scans(conn: Connection) -> int:
    conn.execute("select pg_stat_force_next_flush()")
    row = conn.execute("select seq_scan from pg_stat_user_tables where relname = 'chunk'").fetchone()
    assert row is not None
    return int(row[0])
