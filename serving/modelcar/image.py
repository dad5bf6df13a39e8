"""A base model and a LoRA adapter as the layers, config and manifest of a runnable OCI image ("modelcar").

The image's digest is a function of the model's bytes and names alone: tar headers carry no time, owner or mode of the
machine that builds, and the JSON is canonical. Layers are streams over the model's own files; nothing is written here.

The image holds no shell. It is served by Kubernetes image volumes and by KServe's `oci+fetch://`; KServe's modelcar
sidecar (`oci://`) runs `sh` and `ln` inside the image, so it would need one more layer. Layers are not compressed:
weights hardly shrink, and `oci+fetch://` refuses zstd. Member names start with `models/`, which it requires.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from serving.modelcar.source import (
    ADAPTERS_FOLDER,
    ModelRefused,
    SourceFile,
    adapter_files,
    base_files,
    check_adapter_name,
)

CHUNK = 1 << 20
ROOT = "models"
SMALL_FILES_TITLE = "model-files"
TITLE_ANNOTATION = "org.opencontainers.image.title"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
EPOCH = "1970-01-01T00:00:00Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "65534:65534"
_BLOCK = tarfile.BLOCKSIZE


class ModelChanged(RuntimeError):
    """A file changed while the image was built, so its bytes are not the ones that were checked; build again."""


@dataclass(frozen=True)
class Member:
    """One tar entry; without a source it is a folder."""

    name: str
    source: SourceFile | None

    @property
    def header(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ""
        if self.source is None:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        else:
            info.size, info.mode = self.source.size, 0o644
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    @property
    def padding(self) -> bytes:
        return bytes(-self.source.size % _BLOCK) if self.source else b""

    @property
    def size(self) -> int:
        return len(self.header) + (self.source.size if self.source else 0) + len(self.padding)


class Layer:
    """A tar that exists only while it is read: its size is known at once, its digest after one pass over the files."""

    def __init__(self, title: str, files: Mapping[str, SourceFile]) -> None:
        """`files` maps member names such as `models/config.json` to files; parent folders are added."""
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        members = [Member(name, None) for name in folders] + [Member(name, file) for name, file in files.items()]
        self.title = title
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.size = sum(member.size for member in self.members) + 2 * _BLOCK
        self.known_digest: str | None = None

    @property
    def digest(self) -> str:
        """Read from the files on first use, unless a stream was read to its end before."""
        if self.known_digest is None:
            for _ in self.stream():
                pass
        return cast(str, self.known_digest)  # stream() sets it at its end

    def stream(self) -> Iterator[bytes]:
        """The tar in blocks of at most CHUNK bytes. May be called again. Raises ModelChanged."""
        hasher = hashlib.sha256()
        for block in self._blocks():
            hasher.update(block)
            yield block
        digest = f"sha256:{hasher.hexdigest()}"
        if self.known_digest not in (None, digest):
            raise ModelChanged(f"layer {self.title} read as {digest} after {self.known_digest}; build the image again")
        self.known_digest = digest

    def _blocks(self) -> Iterator[bytes]:
        for member in self.members:
            yield member.header
            if member.source is not None:
                yield from _file_blocks(member.source)
            if member.padding:
                yield member.padding
        yield bytes(2 * _BLOCK)  # the end mark of a tar


def model_layers(base: Path, adapter: Path | None, adapter_name: str | None) -> tuple[Layer, ...]:
    """One layer for each weight file of the base, one for its small files, one for the adapter; the same base gives the
    same first layers with every adapter, so a registry stores them once. Raises ModelRefused.
    """
    files = {f"{ROOT}/{file.name}": file for file in base_files(base)}
    weights = [name for name in files if name.endswith(".safetensors")]
    layers = [Layer(files[name].name, {name: files[name]}) for name in weights]
    layers.append(Layer(SMALL_FILES_TITLE, {name: file for name, file in files.items() if name not in weights}))
    if adapter is None and adapter_name is None:
        return tuple(layers)
    if adapter is None or adapter_name is None:
        raise ModelRefused(f"got adapter {adapter} under the name {adapter_name}; give both or neither")
    check_adapter_name(adapter_name)
    title = adapter_title(adapter_name)
    return (*layers, Layer(title, {f"{ROOT}/{title}/{file.name}": file for file in adapter_files(adapter)}))


def adapter_title(adapter_name: str) -> str:
    """The adapter layer's title, which is also its folder below `models/`."""
    return f"{ADAPTERS_FOLDER}/{adapter_name}"


def manifest(layers: Sequence[Layer], annotations: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The image config and the manifest as canonical JSON. What is in `annotations` becomes part of the digest, so
    nothing that differs from build to build (a time, a host, a run id) belongs there.
    """
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": {"Env": [f"PATH={PATH}"], "User": NOBODY, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": EPOCH, "created_by": f"liftlock: {layer.title}"} for layer in layers],
        }
    )
    descriptors = [
        descriptor(LAYER_TYPE, layer.digest, layer.size) | {"annotations": {TITLE_ANNOTATION: layer.title}}
        for layer in layers
    ]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, sha256_digest(config), len(config)),
        "layers": descriptors,
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return config, canonical_json(document)


def descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _file_blocks(source: SourceFile) -> Iterator[bytes]:
    try:
        opened = source.path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise ModelChanged(f"{source.path} is gone since it was checked; restore it and build again") from error
    with opened as file:
        _check_unchanged(source, os.fstat(file.fileno()))
        while block := file.read(CHUNK):
            yield block
        _check_unchanged(source, os.fstat(file.fileno()))


def _check_unchanged(source: SourceFile, now: os.stat_result) -> None:
    if (now.st_size, now.st_mtime_ns, now.st_ino) != (source.size, source.mtime_ns, source.inode):
        raise ModelChanged(f"{source.path} changed while it was read; wait until nothing writes to it and build again")
