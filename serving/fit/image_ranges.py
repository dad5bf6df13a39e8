"""Ranges of an image's layers, from an OCI layout folder or a registry. The layers' tars are read in image_store.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.fit.image_store import Blob
from serving.fit.model_reader import ModelUnreadable
from serving.modelcar import blobs
from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.credentials import CredentialsInvalid
from serving.modelcar.document import Access, DocumentInvalid, ImageMissing, RegistryFailed
from serving.modelcar.layout import LayoutInvalid
from serving.modelcar.layout_store import LayoutStore
from serving.modelcar.reference import DIGEST, Reference, ReferenceInvalid, parse_reference
from serving.modelcar.registry import Registry

ONE_ANSWER_BYTES = 4 << 20  # a registry's answer is held in memory whole
BASE_MODEL = "dev.liftlock.base-model"  # the annotation with the id that adapters name
FAILURES = (ImageMissing, RegistryFailed, DigestMismatch, LayoutInvalid, DocumentInvalid, CredentialsInvalid)


class ImageRanges:
    """One image of a registry or of a layout folder, by its digest."""

    def __init__(self, text: str, access: Access) -> None:
        """`text`: HOST/REPOSITORY:TAG@DIGEST or oci:FOLDER:TAG@DIGEST; KServe's oci://HOST/… is understood too.

        Raises ModelUnreadable.
        """
        reference = image_reference(text)
        self._store = LayoutStore(reference) if reference.is_layout else _registry(reference, access)
        digest, manifest = self._manifest(reference.wanted)
        self.name = reference.pinned(digest)
        self._layers = tuple(_blob(self.name, entry) for entry in manifest.get("layers") or ())
        annotations = manifest.get("annotations")
        base = annotations.get(BASE_MODEL) if isinstance(annotations, dict) else None
        self.base_model = base if isinstance(base, str) else None

    def layers(self) -> tuple[Blob, ...]:
        return self._layers

    def read(self, blob: Blob, start: int, size: int) -> bytes:
        parts = []
        for begin in range(start, start + size, ONE_ANSWER_BYTES):
            parts.append(self._part(blob, begin, min(ONE_ANSWER_BYTES, start + size - begin)))
        return b"".join(parts)

    def _part(self, blob: Blob, start: int, size: int) -> bytes:
        try:
            if isinstance(self._store, LayoutStore):
                return _file_part(blobs.blob_path(self._store.folder, blob.digest), start, size)
            headers = {"Range": f"bytes={start}-{start + size - 1}"}
            what = f"reading {size} bytes of blob {blob.digest}"
            answer = self._store.ask("GET", f"blobs/{blob.digest}", what, {200, 206}, headers)
        except OSError as error:
            raise ModelUnreadable(f"blob {blob.digest} of {self.name}: {error.strerror}. Build it again.") from error
        except FAILURES as error:
            raise ModelUnreadable(str(error)) from error
        return answer.body if answer.status == 206 else answer.body[start : start + size]

    def _manifest(self, wanted: str) -> tuple[str, Mapping[str, Any]]:
        """Of an index, the manifest for Linux: docker writes one beside its own attestations."""
        try:
            document = self._store.get_manifest(wanted)
            value = document.json()
            for entry in value.get("manifests") or ():
                if entry.get("platform", {}).get("os", "linux") == "linux":
                    document = self._store.get_manifest(entry["digest"])
                    return document.digest, document.json()
        except FAILURES as error:
            raise ModelUnreadable(str(error)) from error
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelUnreadable(f"{self._store.name} has an index that is none. Build the image again.") from error
        return document.digest, value


def image_reference(text: str) -> Reference:
    """Raises ModelUnreadable."""
    try:
        return parse_reference(text.removeprefix("oci+fetch://").removeprefix("oci://"))
    except ReferenceInvalid as error:
        raise ModelUnreadable(str(error)) from error


def _registry(reference: Reference, access: Access) -> Registry:
    try:
        return Registry(reference, access)
    except FAILURES as error:
        raise ModelUnreadable(str(error)) from error


def _file_part(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _blob(name: str, entry: object) -> Blob:
    if isinstance(entry, dict):
        digest, size, kind = entry.get("digest"), entry.get("size"), entry.get("mediaType")
        if isinstance(digest, str) and DIGEST.fullmatch(digest) and type(size) is int and isinstance(kind, str):
            return Blob(digest, size, kind)
    raise ModelUnreadable(f"{name} has a layer without digest, size and type. Build the image again.")
