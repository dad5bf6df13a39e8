"""What an image says of itself: digest, layers, annotations, and, where asked, the files of its small layers.

Reads the manifest and the config; weights are not fetched.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.document import MAX_MANIFEST_BYTES
from serving.modelcar.image import CONFIG_TYPE
from serving.modelcar.layout import LayoutInvalid, blob_refs, checked_manifest
from serving.modelcar.model import LayerRef
from serving.modelcar.store import ImageStore

SMALL_LAYER_BYTES = 32 << 20


@dataclass(frozen=True)
class FileInfo:
    """A regular file of a layer, `name` as it stands in the tar."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Description:
    """`platform` is `os/architecture`, empty for an artifact that is no image; `size` is the bytes of all blobs."""

    reference: str
    digest: str
    media_type: str
    platform: str
    user: str
    entrypoint: tuple[str, ...]
    size: int
    layers: tuple[LayerRef, ...]
    annotations: tuple[tuple[str, str], ...]


def describe(store: ImageStore, reference: str) -> Description:
    """Raises ImageMissing, DigestMismatch, LayoutInvalid, RegistryFailed."""
    document = store.get_manifest(reference)
    manifest = checked_manifest(document.json(), document.digest, store.name)
    config_ref, *layers = blob_refs(manifest)
    config = _config(store, config_ref) if manifest["config"].get("mediaType") == CONFIG_TYPE else {}
    run = config.get("config") or {}
    return Description(
        reference=f"{store.name}@{document.digest}",
        digest=document.digest,
        media_type=str(manifest.get("artifactType") or document.media_type),
        platform=f"{config['os']}/{config['architecture']}" if "os" in config and "architecture" in config else "",
        user=str(run.get("User", "")),
        entrypoint=tuple(map(str, run.get("Entrypoint") or ())),
        size=config_ref.size + sum(layer.size for layer in layers),
        layers=tuple(layers),
        annotations=tuple(sorted((str(key), str(value)) for key, value in (manifest.get("annotations") or {}).items())),
    )


def layer_files(store: ImageStore, layer: LayerRef) -> tuple[FileInfo, ...] | None:
    """The files of a layer of at most SMALL_LAYER_BYTES; None where it is larger or no plain tar.

    Raises DigestMismatch, RegistryFailed.
    """
    if layer.size > SMALL_LAYER_BYTES:
        return None
    data = b"".join(bytes(block) for block in store.blob_blocks(layer.digest, layer.size))
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as tar:
            return tuple(_files(tar))
    except (tarfile.TarError, ValueError, OverflowError):
        return None


def _files(tar: tarfile.TarFile) -> Iterator[FileInfo]:
    for member in tar:
        content = tar.extractfile(member) if member.isreg() else None
        if content is not None:
            yield FileInfo(member.name, member.size, hashlib.sha256(content.read()).hexdigest())


def _config(store: ImageStore, ref: LayerRef) -> dict[str, Any]:
    data = store.get_blob(ref.digest, MAX_MANIFEST_BYTES)
    if len(data) != ref.size:
        raise DigestMismatch(f"the config {ref.digest} has {len(data)} bytes, not {ref.size}; do not use the image")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LayoutInvalid(
            f"the config {ref.digest} of {store.name} is not JSON ({error}); build the image"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("config") or {}, dict):
        raise LayoutInvalid(f"the config {ref.digest} of {store.name} is not an image config; build the image again")
    return config
