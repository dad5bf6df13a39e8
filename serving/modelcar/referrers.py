"""Documents attached to an image: OCI referrers, listed by the registry's API or by the fallback tag `sha256-<hex>`.

A registry without the API (docker-registry 2.8, a layout folder) gets the fallback tag, an index that is read, changed
and written: two signers of one image at the same moment can lose an entry, which the next verify names.
Source: OCI distribution-spec v1.1, "Listing Referrers" and "Pushing Manifests with Subject". One page is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.document import Document, ImageMissing
from serving.modelcar.envelope import MAX_STATEMENT_BYTES
from serving.modelcar.image import MANIFEST_TYPE, canonical_json, descriptor, sha256_digest
from serving.modelcar.layout import INDEX_TYPE
from serving.modelcar.registry import Registry
from serving.modelcar.signature import tag_of
from serving.modelcar.store import ImageStore

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"


class ReferrersInvalid(ValueError):
    """The list of an image's referrers is damaged."""


class AttachmentInvalid(ValueError):
    """A listed referrer is absent, damaged, or not what its entry in the list says."""


@dataclass(frozen=True)
class Attachment:
    """One document to attach; `artifact_type` is what other tools look for."""

    artifact_type: str
    media_type: str
    data: bytes
    annotations: Mapping[str, str]


def attach(
    store: ImageStore,
    subject: Document,
    attachments: Sequence[Attachment],
    replaces: Callable[[Mapping[str, Any]], bool],
    fresh: bool = False,
) -> None:
    """Stores the attachments and lists them before what is listed already; `replaces` says which listed entries go.

    `fresh` begins a new list where the old one is damaged. Raises ReferrersInvalid, and what the store raises.
    """
    store.put_blob(EMPTY)
    entries = []
    for attachment in attachments:
        store.put_blob(attachment.data)
        manifest = _manifest(subject, attachment)
        store.put_manifest(manifest, None)
        entries.append(_entry(manifest, attachment))
    if _from_api(store, subject.digest) is None:
        _list(store, subject.digest, entries, replaces, fresh)


def _list(
    store: ImageStore,
    digest: str,
    entries: Sequence[dict[str, Any]],
    replaces: Callable[[Mapping[str, Any]], bool],
    fresh: bool,
) -> None:
    """Writes the fallback tag, unless it says the same already."""
    added = {entry["digest"] for entry in entries}
    try:
        listed = list_referrers(store, digest)
        found = store.find_manifest(tag_of(digest, ""))
    except ReferrersInvalid:
        if not fresh:
            raise
        listed, found = (), None
    kept = [entry for entry in listed if entry["digest"] not in added and not replaces(entry)]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*entries, *kept]}
    data = canonical_json(index)
    if found is None or found.data != data:
        store.put_manifest(data, tag_of(digest, ""))


def list_referrers(store: ImageStore, digest: str) -> tuple[dict[str, Any], ...]:
    """The descriptors of what is attached, () where nothing is. Raises ReferrersInvalid."""
    index = _from_api(store, digest)
    if index is None:
        try:
            found = store.find_manifest(tag_of(digest, ""))
            index = {"manifests": []} if found is None else found.json()
        except (ValueError, DigestMismatch, ImageMissing) as error:
            raise ReferrersInvalid(f"the list of what is attached to {digest} is damaged: {error}") from error
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise ReferrersInvalid(f"the list of what is attached to {digest} is no OCI index")
    return tuple(entries)


def read_attachment(store: ImageStore, subject: str, entry: Mapping[str, Any]) -> Attachment:
    """What a listed descriptor stands for, every byte verified by digest. Raises AttachmentInvalid."""
    name = f"{entry['digest']}, attached to {subject},"
    try:
        found = store.get_manifest(entry["digest"])
        manifest = found.json()
        (layer,) = manifest["layers"]
        data = read_small(store, layer, MAX_STATEMENT_BYTES)
        same = (manifest["subject"]["digest"], manifest["artifactType"], len(found.data))
        media_type, annotations = str(layer["mediaType"]), manifest.get("annotations") or {}
    except (DigestMismatch, ImageMissing, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AttachmentInvalid(f"{name} is absent or damaged ({error})") from error
    if same != (subject, entry.get("artifactType"), entry["size"]):
        raise AttachmentInvalid(f"{name} is not what the list and its manifest say: its subject, type or size differ")
    return Attachment(str(same[1]), media_type, data, annotations)


def read_small(store: ImageStore, entry: Mapping[str, Any], limit: int) -> bytes:
    """The blob of a descriptor, verified by size and digest. Raises DigestMismatch, KeyError and TypeError."""
    digest, size = str(entry["digest"]), entry["size"]
    if type(size) is not int or not 0 <= size <= limit:
        raise DigestMismatch(f"blob {digest} is said to have {size} bytes; at most {limit} are read")
    if not store.has_blob(digest, size):
        raise DigestMismatch(f"blob {digest} is absent or has not the {size} bytes that it should have")
    return b"".join(bytes(block) for block in store.blob_blocks(digest, size))


def _manifest(subject: Document, attachment: Attachment) -> bytes:
    blob = descriptor(attachment.media_type, sha256_digest(attachment.data), len(attachment.data))
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": attachment.artifact_type,
            "config": descriptor(EMPTY_TYPE, sha256_digest(EMPTY), len(EMPTY)),
            "layers": [blob],
            "subject": descriptor(subject.media_type, subject.digest, len(subject.data)),
            "annotations": dict(attachment.annotations),
        }
    )


def _entry(manifest: bytes, attachment: Attachment) -> dict[str, Any]:
    """With artifactType: a reader of the fallback tag filters by it."""
    return descriptor(MANIFEST_TYPE, sha256_digest(manifest), len(manifest)) | {
        "artifactType": attachment.artifact_type,
        "annotations": dict(attachment.annotations),
    }


def _from_api(store: ImageStore, digest: str) -> dict[str, Any] | None:
    """The registry's own list; None where it has no such API."""
    return store.request_json(f"referrers/{digest}") if isinstance(store, Registry) else None


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("digest"), str)
        and type(entry.get("size")) is int
        and isinstance(entry.get("annotations") or {}, dict)
    )
