"""What the RAG tests share: the real embedding model's folder, an embedder that needs no model, and a small index."""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from rag.chunk import Chunk, Document, Hit, Limits, chunk_document
from rag.embed import LocalEmbedder
from rag.generation import Generation, Pins, find
from rag.index import IndexResult, index
from rag.search import EVERYTHING, Filter, Mode, Query, search
from rag.vectors import Vector

MODEL = Path(__file__).parents[1] / ".toolchain" / "models" / "all-MiniLM-L6-v2"
LIMITS = Limits(30, 0)
Connection = psycopg.Connection[Any]


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def count_words(text: str) -> int:
    return len(words(text))


@dataclass
class WordEmbedder:
    """Each word adds its own random direction, so texts that share words are near. It records what it embedded."""

    name: str = "words"
    revision: str = "1"
    dimension: int = 384
    max_tokens: int = 10_000
    embedded: list[str] = field(default_factory=list)

    def count_tokens(self, text: str) -> int:
        return count_words(text)

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.embedded += texts
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> Vector:
        directions = (np.random.default_rng(zlib.crc32(word.encode())) for word in words(text) or [""])
        total = sum((d.standard_normal(self.dimension) for d in directions), np.zeros(self.dimension))
        return (total / np.linalg.norm(total)).astype(np.float32)

    def pins(self, precision: Any = "vector", limits: Limits = LIMITS) -> Pins:
        return Pins(self.name, self.revision, self.dimension, precision, limits.name)


@dataclass
class Store:
    """One tenant's index of texts, as a command would make and ask it."""

    conn: Connection
    embedder: WordEmbedder = field(default_factory=WordEmbedder)
    tenant: str = "default"
    precision: str = "vector"

    def index(self, texts: Mapping[str, str], **given: Any) -> IndexResult:
        """The digest of a text is the text: what is the same is not cut again."""
        return index(
            self.conn, self.tenant, dict(texts), lambda source: cut(source, texts[source]),
            self.embedder.pins(self.precision), given.get("embed", self.embedder.embed),
        )  # fmt: skip

    def index_chunks(self, chunks: Sequence[Chunk], vectors: Mapping[str, Vector] | None = None) -> IndexResult:
        def embed(passages: Sequence[str]) -> Sequence[Vector]:
            return [vectors[passage] for passage in passages] if vectors else self.embedder.embed(passages)

        return index(self.conn, self.tenant, {"d.md": "1"}, lambda _: chunks, self.embedder.pins(self.precision), embed)

    @property
    def live(self) -> Generation:
        found = find(self.conn, self.tenant, "live")
        assert found is not None
        return found

    def search(
        self, text: str, k: int, mode: Mode = "hybrid", where: Filter = EVERYTHING, **given: Any
    ) -> tuple[Hit, ...]:
        vector = given.pop("vector", None)
        if vector is None:
            vector = self.embedder.embed([text])[0]
        return search(self.conn, self.live, Query(vector, text, k, where, mode, **given))


def cut(source: str, text: str) -> tuple[Chunk, ...]:
    return chunk_document(Document(source, text), count_words, LIMITS)


def plain_chunks(texts: Sequence[str], source: str = "d.md") -> tuple[Chunk, ...]:
    return tuple(
        Chunk(f"{i:064x}", source, "text", (), i, i + 1, text, f"digest {text}") for i, text in enumerate(texts)
    )


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(conn: Connection) -> Store:
    return Store(conn)


@pytest.fixture(scope="session")
def local_embedder() -> LocalEmbedder:
    if not MODEL.is_dir():
        pytest.skip(f"the embedding model is not in {MODEL}")
    return LocalEmbedder(MODEL)
