"""What an embedder is, and the one of a sentence-transformers model in a local folder: on the CPU, without a network.

Counting tokens and naming the model need only its small files; the weights are loaded at the first text embedded.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer

from rag.vectors import Vector

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_REQUIRED = (
    "model.safetensors",
    "tokenizer.json",
    "modules.json",
    "config.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)


class EmbedderUnavailable(Exception):
    """The model folder is missing or incomplete; point at a whole one."""


class TextTooLong(Exception):
    """The model would drop the end of a text without a word; shorten it."""


class Embedder(Protocol):
    """`revision` changes whenever the weights do; `max_tokens` counts as `count_tokens` does."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    def embed(self, texts: Sequence[str]) -> list[Vector]: ...
    def count_tokens(self, text: str) -> int: ...


def token_counter(file: Path) -> Callable[[str], int]:
    """Counts the tokens that a model with this tokenizer.json sees, its special ones included."""
    if not file.is_file():
        raise EmbedderUnavailable(f"{file} is not there; the embedding model's own tokenizer.json is required")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()  # the file may carry both, and either would falsify the count
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


class LocalEmbedder:
    """Raises EmbedderUnavailable when `folder` lacks a file that is needed. Pickled weights are never read."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _REQUIRED if not (folder / name).is_file()]
        if missing:
            raise EmbedderUnavailable(
                f"{folder} lacks {', '.join(missing)}; a sentence-transformers folder with safetensors is required"
            )
        self._folder = folder
        self.count_tokens = token_counter(folder / "tokenizer.json")
        self.name = folder.name
        self.dimension: int = self._read("1_Pooling/config.json")["word_embedding_dimension"]
        self.max_tokens: int = self._read("sentence_bert_config.json")["max_seq_length"]

    @cached_property
    def revision(self) -> str:
        """Hex sha256 of the weights."""
        with (self._folder / "model.safetensors").open("rb") as weights:
            return hashlib.file_digest(weights, "sha256").hexdigest()

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of shape (dimension,) and length 1 per text. Raises TextTooLong rather than cut a text."""
        for text in texts:
            if (count := self.count_tokens(text)) > self.max_tokens:
                raise TextTooLong(f"{text[:40]!r}… has {count} tokens; {self.name} reads {self.max_tokens}: shorten it")
        if not texts:
            return []
        return list(self._model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False))

    @cached_property
    def _model(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer  # seconds to import, so not before it is needed
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # its bar ignores whether there is a terminal
        return SentenceTransformer(
            str(self._folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )

    def _read(self, name: str) -> dict[str, int]:
        settings: dict[str, int] = json.loads((self._folder / name).read_text())
        return settings
