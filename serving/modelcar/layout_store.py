"""An OCI image layout folder behind the same methods as a registry, for whoever works on either (store.py)."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from serving.modelcar import blobs
from serving.modelcar.document import MAX_MANIFEST_BYTES, Document, ImageMissing, document_of
from serving.modelcar.image import sha256_digest
from serving.modelcar.layout import LayoutInvalid, put_manifest, read_index, tag_of
from serving.modelcar.reference import DIGEST, Reference, check_tag


class LayoutStore:
    """The folder is made at the first write. Reads raise LayoutInvalid for a folder that is none, and DigestMismatch."""

    def __init__(self, reference: Reference) -> None:
        self.name = reference.name
        self.folder = Path(reference.folder)

    def __enter__(self) -> "LayoutStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    def find_manifest(self, reference: str) -> Document | None:
        """By tag or digest; the tag `latest` also names the only manifest of an untagged layout."""
        if DIGEST.fullmatch(reference):
            return self._read(reference) if blobs.blob_path(self.folder, reference).is_file() else None
        entries = read_index(self.folder)["manifests"]
        tagged = [entry for entry in entries if tag_of(entry) == reference]
        if not tagged and reference == "latest" and len(entries) == 1:
            tagged = entries
        if len(tagged) > 1:
            raise LayoutInvalid(f"{self.name} has {len(tagged)} manifests with the tag {reference}; name the digest")
        return self._read(tagged[0]["digest"]) if tagged else None

    def get_manifest(self, reference: str) -> Document:
        """Raises ImageMissing."""
        document = self.find_manifest(reference)
        if document is None:
            raise ImageMissing(
                f"{self.name} has no manifest {reference}; it has: {', '.join(self.tags()) or 'no tags'}"
            )
        return document

    def put_manifest(self, data: bytes, tag: str | None) -> str:
        check_tag(tag)
        document_of(data).json()
        self._make()
        return put_manifest(self.folder, data, tag)[0]

    def has_blob(self, digest: str, size: int) -> bool:
        return blobs.has_blob(self.folder, digest, size)

    def get_blob(self, digest: str, limit: int) -> bytes:
        return blobs.read_blob(self.folder, digest, limit)

    def put_blob(self, data: bytes) -> str:
        self._make()
        digest = sha256_digest(data)
        blobs.write_bytes(self.folder, digest, data)
        return digest

    def put_stream(
        self,
        digest: str,
        size: int,
        blocks: Callable[[], Iterator[bytes]],
        report: Callable[[int], None] = lambda sent: None,
    ) -> None:
        """Raises DigestMismatch, and keeps nothing, where the blocks are not the digest's."""
        self._make()
        hasher, done = hashlib.sha256(), 0
        with blobs.partial_file(self.folder) as file:
            for block in blocks():
                hasher.update(block)
                file.write(block)
                done += len(block)
                report(done)
            observed = f"sha256:{hasher.hexdigest()}"
            if observed != digest or done != size:
                raise blobs.DigestMismatch(f"{done} bytes with the digest {observed} came for blob {digest} of {size}")
            blobs.commit(file, blobs.blob_path(self.folder, digest))

    def blob_blocks(self, digest: str, size: int) -> Iterator[bytes]:
        return blobs.stream_blob(self.folder, digest, size)

    def mount(self, digest: str, other_repository: str) -> bool:
        """A folder has one store of blobs for all its images, so there is nothing to mount."""
        return False

    def tags(self) -> tuple[str, ...]:
        return tuple(sorted(tag for entry in read_index(self.folder)["manifests"] if (tag := tag_of(entry))))

    def _read(self, digest: str) -> Document:
        return document_of(blobs.read_blob(self.folder, digest, MAX_MANIFEST_BYTES))

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        read_index(self.folder)  # refuse a foreign folder before anything is written
