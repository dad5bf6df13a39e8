"""Writing a file whole: a reader, and whoever comes after a kill, finds the old text or the new one."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, text: str, errors: str = "strict") -> None:
    """Into a folder that is made where it is missing. `errors` as in str.encode: "replace" where a model's answer may hold half
    a character. Raises OSError, UnicodeEncodeError.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_bytes(text.encode("utf-8", errors))
    temporary.replace(file)
