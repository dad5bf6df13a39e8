"""kill -9 at any moment of an index run: the old index answers all the while, and the next run completes it."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from rag.ask import Asked, find
from rag.generation import EmbedderMismatch
from tests.fix_rag import Store
from tests.rag_worker import texts
from tests.test_rag_index import tables

COUNT = 200
ROOT = Path(__file__).parents[1]


def start(dsn: str, edition: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.rag_worker", dsn, str(COUNT), edition]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def editions(store: Store) -> set[str]:
    asked = Asked("Edition of text number 7", "default", k=20)
    hits = find(asked, conn=store.conn, embedder=store.embedder)
    assert len(hits) == 20
    return {hit.chunk.text.split()[1] for hit in hits}


@pytest.mark.parametrize("kind", ["update", "new embedder"])
def test_a_killed_run_leaves_the_old_index_answering_and_the_next_completes_it(database: str, kind: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn, psycopg.connect(database, autocommit=True) as reader:
        old = Store(conn)
        if kind == "new embedder":
            old.embedder.revision = "0"  # the worker's is another, so it builds beside this one
        old.index(texts(COUNT, "A"))
        stop, seen = threading.Event(), []
        watched = Store(reader, old.embedder)

        def watch() -> None:
            while not stop.is_set():
                try:
                    seen.append(editions(watched))
                except EmbedderMismatch:  # the switch to the new embedder's index: who asks with the old one is told so
                    return
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for delay in (0.01, 0.15, 0.3, 0.45):  # a whole run takes about 0.7 s; each goes on where one ended
            process = start(database, "B")
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
        last = start(database, "B")
        out, _ = last.communicate(timeout=60)
        stop.set()
        watcher.join()
        assert out == f"done {COUNT}\n"
        assert all(one in ({"A"}, {"B"}) for one in seen) and {"A"} in seen and len(seen) > 10
        assert editions(Store(conn)) == {"B"}
        assert tables(conn) == {f"chunk_{Store(conn).live.id}"}
        held = conn.execute(Store(conn).live.fill("select count(*), count(distinct source) from {table}")).fetchone()
        assert held == (COUNT, COUNT)
        assert conn.execute("select count(*) from generation").fetchone() == (1,)
