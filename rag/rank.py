"""Rank passages for questions whose answers are known: index a corpus as a tenant of its own and search for each question.

`python -m rag.rank` does it for several corpora in a process of its own, JSON in and JSON out, so that the retrieval of two
commits can be compared by a gate that imports neither. Nothing here scores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import psycopg

from rag.chunk import Hit
from rag.corpus import find_files
from rag.embed import Embedder, LocalEmbedder, token_counter
from rag.embed_http import HttpEmbedder, Server
from rag.generation import Pins, require_live
from rag.index import index_files
from rag.schema import Connection, as_tenant
from rag.search import Mode, Query, search

MODES: tuple[Mode, ...] = get_args(Mode)
REQUEST_SECONDS = 120


@dataclass(frozen=True)
class Passage:
    """A chunk of the index, as far as a gold passage is recognised by."""

    id: str
    source: str
    text: str


@dataclass(frozen=True)
class Ranking:
    """All passages of one corpus, and what was found for each question in each mode, the best first."""

    passages: tuple[Passage, ...]
    found: dict[tuple[str, Mode], tuple[Hit, ...]]
    pins: Pins


def rank(
    conn: Connection, model: Embedder, corpus: Path, tenant: str, questions: Mapping[str, str], k: int,
    modes: Sequence[Mode] = MODES,
) -> Ranking:  # fmt: skip
    """`questions` by id. Raises what indexing and searching raise."""
    index_files(conn, tenant, find_files((corpus,), corpus), model)
    live = require_live(conn, tenant, model.name, model.revision, model.dimension)
    with as_tenant(conn, tenant, reader=True):
        rows = conn.execute(live.fill("select id, source, text from {table} order by source, ordinal")).fetchall()
    vectors = model.embed(list(questions.values()))
    found = {
        (name, mode): search(conn, live, Query(vector, question, k, mode=mode))
        for (name, question), vector in zip(questions.items(), vectors, strict=True)
        for mode in modes
    }
    return Ranking(tuple(Passage(*row) for row in rows), found, live.pins)


@contextmanager
def _embedder(asked: Mapping[str, Any]) -> Iterator[Embedder]:
    """Of a folder, or of a server with the tokenizer of the model."""
    if "folder" in asked:
        yield LocalEmbedder(Path(asked["folder"]))
        return
    with httpx.Client(timeout=REQUEST_SECONDS) as client:
        yield HttpEmbedder(
            Server(asked["url"], client, asked["key"]), asked["name"], token_counter(Path(asked["tokenizer"])),
            asked["revision"], asked["max_tokens"],
        )  # fmt: skip


def main() -> None:
    """Hybrid search alone: it is what answers."""
    asked = json.load(sys.stdin)
    answer: dict[str, Any] = {}
    with psycopg.connect(asked["dsn"], autocommit=True) as conn, _embedder(asked["embedder"]) as model:
        for corpus, questions in asked["questions"].items():
            ranking = rank(conn, model, Path(asked["corpora"]) / corpus, corpus, questions, asked["k"], ("hybrid",))
            answer[corpus] = {
                "passages": [asdict(passage) for passage in ranking.passages],
                "found": {name: [hit.chunk.id for hit in hits] for (name, _), hits in ranking.found.items()},
                "pins": asdict(ranking.pins),
            }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
