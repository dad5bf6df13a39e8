"""Files that Envoy reads: replaced whole, so that a killed writer leaves the old one. One writer at a time by a lock.

A ballast file keeps room for an undo: it is made before a candidate gets weight, and given up when the disk is full.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BALLAST, BALLAST_BYTES = ".ballast", 1 << 20


def keep_ballast(folder: Path) -> None:
    """Raises OSError where there is no room: then no candidate may get weight, because it could not be taken back."""
    file = folder / BALLAST
    if file.exists() and file.stat().st_size == BALLAST_BYTES:
        return
    with file.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, BALLAST_BYTES)


def replace_file(path: Path, text: str, mode: int = 0o644, last_room: bool = False) -> None:
    """With `last_room`, as for an undo, the ballast beside it is given up where the disk is full."""
    try:
        _replace(path, text, mode)
    except OSError as error:
        ballast = path.parent / BALLAST
        if not last_room or error.errno != errno.ENOSPC or not ballast.exists():
            raise
        ballast.unlink()
        _replace(path, text, mode)


def _replace(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
