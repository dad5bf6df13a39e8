"""The real embedding model: what it says of itself, and that near means alike."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from rag.embed import EmbedderUnavailable, LocalEmbedder, TextTooLong
from tests.fix_rag import MODEL


def test_it_says_which_model_it_is(local_embedder: LocalEmbedder) -> None:
    assert (local_embedder.name, local_embedder.dimension, local_embedder.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert local_embedder.revision == hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()


def test_tokens_are_counted_beyond_the_limit_with_the_special_ones(local_embedder: LocalEmbedder) -> None:
    assert local_embedder.count_tokens("") == 2
    assert local_embedder.count_tokens("cat " * 300) == 302


def test_vectors_are_normalised_and_alike_texts_are_near(local_embedder: LocalEmbedder) -> None:
    texts = ["I was charged twice.", "My card was billed two times.", "It rains in the mountains."]
    vectors = local_embedder.embed(texts)
    assert all(vector.shape == (384,) and vector.dtype == np.float32 for vector in vectors)
    assert [float(np.linalg.norm(vector)) for vector in vectors] == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]


def test_a_text_is_never_cut_short(local_embedder: LocalEmbedder) -> None:
    with pytest.raises(TextTooLong, match="302 tokens; all-MiniLM-L6-v2 reads 256"):
        local_embedder.embed(["fine", "cat " * 300])


def test_no_texts_need_no_model(local_embedder: LocalEmbedder) -> None:
    assert LocalEmbedder(MODEL).embed([]) == []


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EmbedderUnavailable, match=r"lacks model\.safetensors, tokenizer\.json"):
        LocalEmbedder(tmp_path)
