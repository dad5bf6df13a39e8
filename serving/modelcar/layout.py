"""Writes and verifies an OCI image layout folder (image-spec, "OCI Image Layout"): blobs, index.json, oci-layout.

Several builds may write into one folder at the same time. Manifests that are no longer tagged stay in the index, and
blobs stay in the folder: nothing is collected here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.modelcar import blobs
from serving.modelcar.document import MAX_MANIFEST_BYTES
from serving.modelcar.image import (
    TITLE_ANNOTATION,
    canonical_json,
    descriptor,
    manifest,
    sha256_digest,
)
from serving.modelcar.layer import Layer
from serving.modelcar.model import LayerRef, Modelcar
from serving.modelcar.reference import DIGEST

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_LOCK = ".liftlock-index.lock"


class LayoutInvalid(ValueError):
    """The folder, or a manifest in it, does not have the shape of an OCI image layout."""


def write_layout(
    layout: Path,
    layers: Sequence[Layer],
    annotations: Mapping[str, str],
    tag: str | None = None,
    *,
    name: str | None = None,
) -> Modelcar:
    """Builds the image into the folder, which is made where it is absent, and names it `name@digest` (the layout's path
    where there is no name). A tag moves from the manifest that had it. Raises ModelChanged, LayoutInvalid.
    """
    layout.mkdir(parents=True, exist_ok=True)
    read_index(layout)  # refuse a foreign folder before gigabytes are written
    blobs.remove_partial_files(layout)
    written = sum(_store(layout, layer) for layer in layers)
    config, document = manifest(layers, annotations)
    written += blobs.write_bytes(layout, sha256_digest(config), config)
    digest, manifest_written = put_manifest(layout, document, tag)
    return Modelcar(
        reference=f"{name or layout}@{digest}",
        digest=digest,
        layers=tuple(LayerRef(layer.digest, layer.size, layer.title) for layer in layers),
        bytes_written=written + manifest_written,
        size=sum(layer.size for layer in layers) + len(config) + len(document),
    )


def put_manifest(layout: Path, document: bytes, tag: str | None) -> tuple[str, int]:
    """Stores a manifest and lists it in the index; returns its digest and the bytes written for the blob."""
    digest = sha256_digest(document)
    written = blobs.write_bytes(layout, digest, document)
    media_type = json.loads(document)["mediaType"]
    with blobs.locked(layout / _INDEX_LOCK):
        index = with_manifest(read_index(layout), descriptor(media_type, digest, len(document)), tag)
        _write_file(layout, "index.json", index)
        _write_file(layout, "oci-layout", {"imageLayoutVersion": "1.0.0"})
    return digest, written


def with_manifest(index: Mapping[str, Any], entry: Mapping[str, Any], tag: str | None) -> dict[str, Any]:
    """The index with the entry listed under the tag. The entry that had the tag stays, without it."""
    kept = [_without_tag(other, tag) for other in index["manifests"]]
    added = dict(entry) | ({"annotations": {REF_NAME: tag}} if tag else {})
    result: list[dict[str, Any]] = []
    for candidate in [*kept, added]:
        if candidate not in result:
            result.append(candidate)
    tagged = {other["digest"] for other in result if tag_of(other)}
    listed = [other for other in result if other.get("annotations") or other["digest"] not in tagged]
    return dict(index) | {"manifests": listed}


def read_index(layout: Path) -> dict[str, Any]:
    """index.json, or an empty index where there is none. Raises LayoutInvalid."""
    path = layout / "index.json"
    if not path.exists():
        return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}
    index = _json_object(path.read_bytes(), str(path))
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(_is_descriptor(entry) for entry in entries):
        raise LayoutInvalid(f"{path} has no list of manifests with digests; move the folder away or name another one")
    return index


def read_manifest(layout: Path, digest: str) -> dict[str, Any]:
    """An image manifest whose bytes have the digest. Raises DigestMismatch, LayoutInvalid."""
    document = _json_object(blobs.read_blob(layout, digest, MAX_MANIFEST_BYTES), f"manifest {digest}")
    return checked_manifest(document, digest, str(layout))


def checked_manifest(document: dict[str, Any], digest: str, where: str) -> dict[str, Any]:
    """The document, if it has the shape of an image manifest. Raises LayoutInvalid."""
    listed = document.get("layers")
    if not isinstance(listed, list) or not all(_is_descriptor(entry) for entry in [document.get("config"), *listed]):
        raise LayoutInvalid(f"{digest} in {where} is not an image manifest with config and layers; name one that is")
    return document


def blob_refs(document: Mapping[str, Any]) -> tuple[LayerRef, ...]:
    """The config, then the layers, of a manifest that read_manifest returned."""
    entries = [document["config"], *document["layers"]]
    return tuple(LayerRef(entry["digest"], entry["size"], _title(entry)) for entry in entries)


def verify_layout(layout: Path, digest: str) -> None:
    """Reads every byte of the image. Raises DigestMismatch, which names the blob, and LayoutInvalid."""
    for ref in blob_refs(read_manifest(layout, digest)):
        blobs.verify_blob(layout, ref.digest, ref.size)


def _store(layout: Path, layer: Layer) -> int:
    """Hashing first saves the write where the blob may be there; else one pass both hashes and writes."""
    may_be_there = layer.known_digest is not None or blobs.has_blob_of_size(layout, layer.size)
    if may_be_there and blobs.has_blob(layout, layer.digest, layer.size):
        return 0
    with blobs.partial_file(layout) as file:
        for block in layer.stream():
            file.write(block)
        blobs.commit(file, blobs.blob_path(layout, layer.digest))
    return layer.size


def _write_file(layout: Path, name: str, value: Mapping[str, Any]) -> None:
    path, data = layout / name, canonical_json(value)
    if path.exists() and path.read_bytes() == data:
        return
    with blobs.partial_file(layout) as file:
        file.write(data)
        blobs.commit(file, path)


def _json_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LayoutInvalid(f"{what} is not JSON ({error}); move the layout folder away and build again") from error
    if not isinstance(value, dict):
        raise LayoutInvalid(f"{what} is not a JSON object; move the layout folder away and build again")
    return value


def _is_descriptor(entry: object) -> bool:
    if not isinstance(entry, dict) or not _are_annotations(entry.get("annotations") or {}):
        return False
    size, digest = entry.get("size"), entry.get("digest")
    return type(size) is int and size >= 0 and isinstance(digest, str) and DIGEST.fullmatch(digest) is not None


def _are_annotations(value: object) -> bool:
    """A map of texts to texts (OCI image specification, annotations.md)."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def tag_of(entry: Mapping[str, Any]) -> str | None:
    """The tag of an entry of the index, or None."""
    name: str | None = (entry.get("annotations") or {}).get(REF_NAME)
    return name


def _title(entry: Mapping[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(TITLE_ANNOTATION, ""))


def _without_tag(entry: Mapping[str, Any], tag: str | None) -> dict[str, Any]:
    if tag is None or tag_of(entry) != tag:
        return dict(entry)
    annotations = {key: value for key, value in entry["annotations"].items() if key != REF_NAME}
    rest = {key: value for key, value in entry.items() if key != "annotations"}
    return rest | ({"annotations": annotations} if annotations else {})
