"""Vectors as they leave an embedder: the shape that is promised, finite, and not zero, or refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class EmbeddingInvalid(Exception):
    """The embedder gave something that is no vector of its own: nothing of it is stored."""


def checked(vectors: Sequence[Vector], texts: Sequence[str], dimension: int, embedder: str) -> Sequence[Vector]:
    """The same vectors. Raises EmbeddingInvalid for a wrong number, a wrong dimension, NaN, infinity or zero."""
    if len(vectors) != len(texts):
        raise EmbeddingInvalid(f"{embedder} gave {len(vectors)} vectors for {len(texts)} texts; one each is required")
    for vector, text in zip(vectors, texts, strict=True):
        if (fault := _fault(vector, dimension)) is not None:
            raise EmbeddingInvalid(
                f"{embedder} gave {fault} for the text {text[:40]!r}; {dimension} finite numbers, not all zero, are "
                "required. Nothing was stored: mend the embedder and index again"
            )
    return vectors


def _fault(vector: Vector, dimension: int) -> str | None:
    if vector.shape != (dimension,):
        return f"a vector of shape {vector.shape}"
    if not np.isfinite(vector).all():
        return "a vector with NaN or infinity"
    return None if np.any(vector) else "a vector of zeros"
