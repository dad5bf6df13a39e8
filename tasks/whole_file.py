"""Writing a file whole: a reader, and whoever comes after a kill or a power cut, finds the old text or the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(file: Path, text: str, errors: str = "strict", mode: int = 0o666) -> None:
    """Into a folder that is made where it is missing. `errors` as in str.encode: "replace" where a model's answer may hold half
    a character, `mode` as in os.open. Two writers at once do not meet: the later one's text stays. Raises OSError, UnicodeEncodeError.
    """
    content = text.encode("utf-8", errors)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(file, content, mode)
    try:
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    settle_folder(file.parent)


def write_beside(file: Path, content: bytes, mode: int = 0o666) -> Path:
    """A new hidden file next to it, on the disk itself when this returns, and gone when this fails. `mode` as in os.open."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.new")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def settle_folder(folder: Path) -> None:
    """A name in a folder outlives a power cut once the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
