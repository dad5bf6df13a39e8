"""An index run as a process of its own, to be killed: `python -m tests.rag_worker DSN NUMBER_OF_TEXTS EDITION`."""

import sys
import time
from collections.abc import Sequence

import psycopg

import rag.index
from rag.vectors import Vector
from tests.fix_rag import Store

BATCH_SECONDS = 0.05


def texts(count: int, edition: str) -> dict[str, str]:
    return {f"{i:03}.md": f"Edition {edition} of text number {i}." for i in range(count)}


def main() -> None:
    dsn, count, edition = sys.argv[1:]
    with psycopg.connect(dsn, autocommit=True) as conn:
        store = Store(conn)

        def embed_slowly(passages: Sequence[str]) -> list[Vector]:
            time.sleep(BATCH_SECONDS)
            return store.embedder.embed(passages)

        print("ready", flush=True)
        result = store.index(texts(int(count), edition), embed=embed_slowly)
        print(f"done {result.chunks}", flush=True)


if __name__ == "__main__":
    rag.index.BATCH = 20
    main()
