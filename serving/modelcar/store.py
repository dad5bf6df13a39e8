"""Where images are: one repository of a registry, or a layout folder, behind the same methods."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from serving.modelcar.document import Access, Document
from serving.modelcar.layout_store import LayoutStore
from serving.modelcar.reference import Reference
from serving.modelcar.registry import Registry


class ImageStore(Protocol):
    """Digests read `sha256:<hex>`, sizes are in bytes. Registry and LayoutStore say what each method raises."""

    name: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...

    def find_manifest(self, reference: str) -> Document | None: ...

    def get_manifest(self, reference: str) -> Document: ...

    def put_manifest(self, data: bytes, tag: str | None) -> str: ...

    def has_blob(self, digest: str, size: int) -> bool: ...

    def get_blob(self, digest: str, limit: int) -> bytes: ...

    def put_blob(self, data: bytes) -> str: ...

    def put_stream(
        self, digest: str, size: int, blocks: Callable[[], Iterator[bytes]], report: Callable[[int], None] = ...
    ) -> None: ...

    def blob_blocks(self, digest: str, size: int) -> Iterator[memoryview] | Iterator[bytes]: ...

    def mount(self, digest: str, other_repository: str) -> bool: ...

    def tags(self) -> tuple[str, ...]: ...


def open_store(reference: Reference, access: Access = Access()) -> ImageStore:  # noqa: B008 - a frozen value
    """Raises CredentialsInvalid, also for a `ca_file` that holds no certificates."""
    return LayoutStore(reference) if reference.is_layout else Registry(reference, access)


__all__ = ["Access", "Document", "ImageStore", "open_store"]
