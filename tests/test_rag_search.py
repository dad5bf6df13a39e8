"""Search in a real Postgres: fusion, filters that still give k, diversity, recall, and any text as a question."""

import math

import numpy as np
import pytest

from rag.chunk import Chunk
from rag.generation import require_live
from rag.search import Filter, Query, explain, neighbours
from rag.vectors import Vector
from tests.fix_rag import Connection, Store, cut, plain_chunks
from tests.test_rag_index import DOCUMENTS


def test_the_best_of_both_lists_comes_first(store: Store) -> None:
    store.index(DOCUMENTS)
    first, second = store.search("one command undoes", 2)
    assert first.chunk == cut("rollback.md", DOCUMENTS["rollback.md"])[0]
    assert (first.score, first.vector_rank, first.text_rank) == (pytest.approx(0.7 * first.similarity + 0.3), 1, 1)
    assert (second.score, second.vector_rank, second.text_rank) == (pytest.approx(0.7 * second.similarity), 2, None)
    assert 1 >= first.similarity > second.similarity


def test_a_rare_word_is_found_where_the_vector_does_not_help(store: Store) -> None:
    documents = {f"{i}.md": f"Common words all over again, part {i}." for i in range(60)}
    store.index(documents | {"rare.md": "Beware of hnsw."})
    vector = store.embedder.embed(["over"])[0]  # nearer to all the others
    assert store.search("What is hnsw?", 1, vector=vector)[0].chunk.source == "rare.md"
    only = store.search("What is hnsw?", 5, mode="text", vector=vector)
    assert [hit.chunk.source for hit in only] == ["rare.md"]
    assert "rare.md" not in {hit.chunk.source for hit in store.search("hnsw", 5, mode="vector", vector=vector)}


def test_a_passage_is_worth_the_share_of_the_weight_of_the_words_that_it_has(store: Store) -> None:
    texts = ["apple pear", "pear", "plum", "plum"] + [f"other{i}" for i in range(6)]
    store.index_chunks(plain_chunks(texts))
    weight = {number: math.log(1 + (10 - number + 0.5) / (number + 0.5)) for number in (0, 1, 2)}  # of ten passages
    whole = weight[1] + weight[2] + weight[0]  # apple in one, pear in two, cherry in none
    found = {hit.chunk.text: hit.score for hit in store.search("apple pear cherry", 5, mode="text")}
    assert found == {
        "apple pear": pytest.approx((weight[1] + weight[2]) / whole), "pear": pytest.approx(weight[2] / whole)
    }  # fmt: skip
    by_vector = store.search("apple pear", 10, vector=store.embedder.embed(["apple pear"])[0])
    assert by_vector[0].score == pytest.approx(1.0) and by_vector[-1].text_rank is None


def test_words_of_a_heading_count_for_the_passages_below_it(store: Store) -> None:
    documents = {f"{i}.md": f"# Part {i}\n\nIt stops the server." for i in range(5)}
    store.index(documents | {"z.md": "# Rollback\n\nIt stops the server."})
    assert store.search("rollback", 1, mode="text")[0].chunk.source == "z.md"


@pytest.mark.parametrize("text", ["", "???", "a & b | !(c:*", "C:\\temp 'quoted' <-> \"x\"", "the of and", "%s %(k)s"])
def test_any_question_text_is_only_text(store: Store, text: str) -> None:
    store.index(DOCUMENTS)
    assert len(store.search(text, 3, vector=store.embedder.embed(["margin"])[0])) == 3


@pytest.mark.parametrize("k", [1, 40, 500, 2000, 3060])
def test_k_rows_come_back_where_most_vectors_are_equal(store: Store, k: int) -> None:
    texts = ["same"] * 3000 + [f"text {i}" for i in range(50)]
    store.index_chunks(plain_chunks(texts))
    prefer_index(store.conn)
    hits = store.search("", k, vector=store.embedder.embed(["same"])[0])
    assert len(hits) == len({hit.chunk.id for hit in hits}) == min(k, 3050)


@pytest.fixture
def random_vectors(store: Store) -> Vector:
    """2000 vectors of length 1, shape (2000, 384), each stored with its row number as text, every 100th in rare/."""
    vectors = np.random.default_rng(7).standard_normal((2000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chunks = tuple(
        Chunk(f"{i:064x}", "rare/d.md" if i % 100 == 0 else "d.md", "text", (), i, 1, str(i), f"digest {i}")
        for i in range(2000)
    )
    store.index_chunks(chunks, {str(i): vectors[i] for i in range(2000)})
    prefer_index(store.conn)
    return vectors


def test_hnsw_finds_what_an_exact_search_finds(store: Store, random_vectors: Vector) -> None:
    questions = np.random.default_rng(8).standard_normal((50, 384)).astype(np.float32)
    found = [
        {int(hit.chunk.text) for hit in store.search("", 10, vector=question, per_source=10)} for question in questions
    ]
    exact = [set(np.argsort(-random_vectors @ question)[:10].tolist()) for question in questions]
    assert scans(store) == 50  # so the numbers above are the index's, not a sequential scan's
    assert sum(len(a & b) for a, b in zip(found, exact, strict=True)) / 500 >= 0.9  # random vectors are the worst case


@pytest.mark.parametrize("where", [Filter(under="rare/"), Filter(kinds=("text",), under="rare/")])
def test_a_filter_that_leaves_one_in_a_hundred_still_gives_k(
    store: Store, random_vectors: Vector, where: Filter
) -> None:
    exact = sorted(range(0, 2000, 100), key=lambda i: -float(random_vectors[i] @ random_vectors[5]))
    hits = store.search("", 10, where=where, vector=random_vectors[5], per_source=10)
    assert [int(hit.chunk.text) for hit in hits] == exact[:10]
    assert len(store.search("", 50, where=where, vector=random_vectors[5], per_source=50)) == 20  # all there are


def test_words_are_found_by_their_index_in_spite_of_row_level_security(store: Store) -> None:
    store.index_chunks(plain_chunks([f"common word{i}" for i in range(3000)]))
    store.conn.execute("set enable_seqscan = off")
    live = store.live
    plan = explain(store.conn, live, Query(store.embedder.embed(["x"])[0], "word7 word2999", 5))
    assert f"Bitmap Index Scan on chunk_{live.id}_words" in plan


def test_a_filter_of_no_kind_gives_nothing(store: Store) -> None:
    store.index(DOCUMENTS)
    assert store.search("margin", 3, where=Filter(kinds=("pdf",))) == ()
    assert {hit.chunk.source for hit in store.search("margin", 3, where=Filter(under="fit"))} == {"fit.md"}


def test_one_document_does_not_take_all_places_and_copies_come_last(store: Store) -> None:
    long = "\n\n".join(f"# Part {i}\n\nThe margin of part {i} bounds the loss." for i in range(6))
    store.index(
        {"long.md": long, "copy.md": "# Part 0\n\nThe margin of part 0 bounds the loss.", "other.md": "A margin."}
    )
    sources = [hit.chunk.source for hit in store.search("margin bounds the loss", 8, per_source=2)]
    assert len(sources) == 8 and sources[:4].count("long.md") <= 2 and "other.md" in sources[:4]
    digests = [hit.chunk.digest for hit in store.search("margin bounds the loss", 8, per_source=8)]
    assert len(set(digests[:7])) == 7 and digests[7] in digests[:7]


def test_a_passage_comes_with_its_neighbours(store: Store) -> None:
    text = "\n\n".join(f"# Part {i}\n\nText {i}." for i in range(6))
    store.index({"a.md": text, "b.md": text.replace("Text", "Other")})
    middle = cut("a.md", text)[3]
    around = neighbours(store.conn, store.live, middle.id, around=1)
    assert [(chunk.source, chunk.ordinal) for chunk in around] == [("a.md", 2), ("a.md", 3), ("a.md", 4)]
    assert around[1] == middle
    assert neighbours(store.conn, store.live, "no such id") == ()


def test_the_plan_can_be_looked_at(store: Store, random_vectors: Vector) -> None:
    live = require_live(store.conn, "default", "words", "1", 384)
    plan = explain(store.conn, live, Query(random_vectors[0], "words", 5))
    assert f"Index Scan using chunk_{live.id}_embedding" in plan and "Execution Time" in plan
    assert max(map(len, plan.splitlines())) < 500  # the question's vector is left out


def prefer_index(conn: Connection) -> None:
    """So few rows are read in sequence otherwise, and exactly."""
    conn.execute("set random_page_cost = 0.1")


def scans(store: Store) -> int:
    store.conn.execute("select pg_stat_force_next_flush()")
    row = store.conn.execute(
        "select idx_scan from pg_stat_user_indexes where indexrelname = %s", (f"chunk_{store.live.id}_embedding",)
    ).fetchone()
    assert row is not None
    return int(row[0])
