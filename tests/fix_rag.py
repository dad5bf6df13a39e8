"""What the RAG tests share: the real embedding model's folder, and an embedder that needs no model."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from rag.embed import LocalEmbedder, Vector

MODEL = Path(__file__).parents[1] / ".toolchain" / "models" / "all-MiniLM-L6-v2"


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


@pytest.fixture(scope="session")
def local_embedder() -> LocalEmbedder:
    if not MODEL.is_dir():
        pytest.skip(f"the embedding model is not in {MODEL}")
    return LocalEmbedder(MODEL)
