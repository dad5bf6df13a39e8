"""The blobs of an OCI image layout folder: `blobs/sha256/<hex>`, written once and named by their content.

A blob is written to a temporary file beside `blobs/` and renamed when it is complete. Its writer holds a lock on the
temporary file, so another build can tell the file of a killed build, which it removes, from one still being written.
Nothing here knows of manifests. Blobs are never deleted.
"""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20
_LOCK = ".liftlock-partial.lock"
_TEMPORARY = ".liftlock-partial-"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class DigestMismatch(RuntimeError):
    """A blob is absent or is not what its digest says. A retry is useless: the bytes themselves are wrong."""


def blob_path(layout: Path, digest: str) -> Path:
    """Where the blob is or would be. Raises DigestMismatch for anything that is not `sha256:<64 hex digits>`."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise DigestMismatch(f"{digest!r} is not a digest; sha256: and 64 hexadecimal digits are required")
    return layout / "blobs" / "sha256" / match[1]


def has_blob(layout: Path, digest: str, size: int) -> bool:
    """By name and size; verify_blob reads the content."""
    path = blob_path(layout, digest)
    return path.is_file() and path.stat().st_size == size


def has_blob_of_size(layout: Path, size: int) -> bool:
    folder = layout / "blobs" / "sha256"
    return folder.is_dir() and any(entry.stat().st_size == size for entry in os.scandir(folder))


def read_blob(layout: Path, digest: str, limit: int) -> bytes:
    """A small blob, verified. Raises DigestMismatch, also where it is larger than `limit` bytes."""
    path = blob_path(layout, digest)
    if not path.is_file() or path.stat().st_size > limit:
        raise DigestMismatch(f"blob {digest} is absent from {layout} or over {limit} bytes; build the image again")
    data = path.read_bytes()
    _check(layout, digest, f"sha256:{hashlib.sha256(data).hexdigest()}")
    return data


def verify_blob(layout: Path, digest: str, size: int) -> None:
    """Reads the whole blob. Raises DigestMismatch."""
    for _ in stream_blob(layout, digest, size):
        pass


def stream_blob(layout: Path, digest: str, size: int) -> Iterator[bytes]:
    """The blob in blocks of at most CHUNK bytes. Raises DigestMismatch, for wrong content after the last block."""
    path = blob_path(layout, digest)
    if not has_blob(layout, digest, size):
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise DigestMismatch(f"blob {digest} of {layout} is {found}, not {size} bytes; delete it and build again")
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            hasher.update(block)
            yield block
    _check(layout, digest, f"sha256:{hasher.hexdigest()}")


def write_bytes(layout: Path, digest: str, data: bytes) -> int:
    """Writes a small blob unless it is there; returns the bytes written."""
    if has_blob(layout, digest, len(data)):
        return 0
    with partial_file(layout) as file:
        file.write(data)
        commit(file, blob_path(layout, digest))
    return len(data)


@contextmanager
def partial_file(layout: Path) -> Iterator[BinaryIO]:
    """A temporary file to fill and then commit; it is removed if it was not committed."""
    path = layout / f"{_TEMPORARY}{secrets.token_hex(8)}"
    with locked(layout / _LOCK):  # a cleaner must not see the file before its own lock is held
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def commit(file: BinaryIO, path: Path) -> None:
    """Gives the partial file its final name. It is flushed to disk first: a blob's presence is taken as its content."""
    file.flush()
    os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(file.name).replace(path)


def remove_partial_files(layout: Path) -> None:
    """Removes what killed builds left; files that a live build is writing stay."""
    with locked(layout / _LOCK):
        for path in layout.glob(f"{_TEMPORARY}*"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):
                continue  # a live build is writing it, or has just committed it


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file; waits for other holders, in this process too."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check(layout: Path, digest: str, observed: str) -> None:
    if observed != digest:
        raise DigestMismatch(
            f"blob {digest} of {layout} holds {observed}; the file was changed or damaged; delete it and build again"
        )
