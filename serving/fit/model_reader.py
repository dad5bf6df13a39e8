"""Reads a model's config.json, index and safetensors headers through a FileStore. Weights are never read.

A store is a folder (folder_store.py), a Hugging Face repository (hub.py) or an OCI image (image_store.py); all that
they have to do is list files with sizes and give ranges of bytes.
"""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from serving.fit.config import ConfigInvalid
from serving.fit.model_files import CONFIG, INDEX, ModelFiles, total_size, weight_names
from serving.fit.safetensors_header import LENGTH_BYTES, HeaderInvalid, Tensor, header_length, parse_header
from serving.fit.strict_json import MAX_FILE_BYTES, BadJson, parse_object

FIRST_READ_BYTES = 100_000  # holds the whole header of most files (huggingface_hub reads as much at first)


class ModelUnreadable(Exception):
    """The place that the model was to be read from does not exist, does not answer, or answers with something else."""


class FileStore(Protocol):
    """Read-only. `read` and `sizes` raise ModelUnreadable; `read` is called from several threads."""

    name: str  # as a person calls it
    names: tuple[str, ...]  # what an adapter may call this base
    origin: str
    parallel: int  # how many reads at a time help

    def sizes(self) -> dict[str, int]:
        """Bytes of each file by its path inside the model."""

    def read(self, file: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer only at the end of the file."""


def read_model(store: FileStore) -> ModelFiles:
    """Raises ModelUnreadable, ConfigInvalid, HeaderInvalid."""
    sizes = store.sizes()
    config_bytes = _json_file(store, sizes, CONFIG)
    config = _config(store.name, config_bytes)
    index_bytes = _json_file(store, sizes, INDEX) if INDEX in sizes else b""
    index = _index(index_bytes) if INDEX in sizes else None
    files = weight_names(sizes, index)
    with ThreadPoolExecutor(store.parallel) as pool:
        read = list(pool.map(lambda name: _header(store, name, sizes[name]), files))
    tensors = tuple(tensor for _, found in read for tensor in found)
    _check_unique(tensors)
    return ModelFiles(
        name=store.name,
        names=store.names,
        config=config,
        tensors=tensors if files else None,
        file_bytes=tuple(sizes[name] for name in files),
        index_bytes=total_size(index) if index is not None and not files else None,
        digest=_digest(config_bytes, index_bytes, [header for header, _ in read]),
        origin=store.origin if files else f"{store.origin}, without weight files",
    )


def _json_file(store: FileStore, sizes: dict[str, int], name: str) -> bytes:
    if name not in sizes:
        raise ConfigInvalid(f"{store.name} has no {name}; required: a model's files. Name the folder that has it.")
    if sizes[name] > MAX_FILE_BYTES:
        raise ConfigInvalid(
            f"{name} of {store.name} has {sizes[name]} bytes; at most {MAX_FILE_BYTES} are read. Fetch it again."
        )
    return store.read(name, 0, sizes[name])


def _config(name: str, data: bytes) -> dict[str, object]:
    try:
        return parse_object(data)
    except BadJson as error:
        raise ConfigInvalid(
            f"{CONFIG} of {name}: {error}; required: the model's JSON file. Fetch the model again."
        ) from error


def _index(data: bytes) -> dict[str, object]:
    try:
        return parse_object(data)
    except BadJson as error:
        raise HeaderInvalid(f"{INDEX} cannot be read: {error}. Fetch it again.") from error


def _header(store: FileStore, name: str, size: int) -> tuple[bytes, tuple[Tensor, ...]]:
    """The header's bytes and its tensors; one read where the header is short, two where it is long."""
    first = store.read(name, 0, min(size, FIRST_READ_BYTES))
    length = header_length(name, first[:LENGTH_BYTES], size)
    header = first[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(header) < length:
        header += store.read(name, LENGTH_BYTES + len(header), length - len(header))
    if len(header) != length:
        raise HeaderInvalid(f"{name} ends inside its header; required: {length} bytes. Fetch the file again.")
    return header, parse_header(name, header, size - LENGTH_BYTES - length)


def _check_unique(tensors: tuple[Tensor, ...]) -> None:
    twice, times = Counter(tensor.name for tensor in tensors).most_common(1)[0] if tensors else ("", 0)
    if times > 1:
        raise HeaderInvalid(
            f"Tensor {twice[:80]!r} is in two weight files; required: once. Remove the stale file or add {INDEX}."
        )


def _digest(config: bytes, index: bytes, headers: list[bytes]) -> str:
    """Each part by its own sha256, so that no two models run into each other."""
    parts = [hashlib.sha256(part).hexdigest() for part in (config, index, *headers)]
    return f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}"
