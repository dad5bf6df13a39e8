"""The rows of a file of results, each with its place: JSON lines, or promptfoo's one document. Effect (reads files)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


class ResultsInvalid(Exception):
    """A file of results that no verdict may rest on."""


def read_rows(path: Path) -> list[tuple[str, Row]]:
    """(place, row) of each result; the rows of promptfoo's document, else each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ResultsInvalid(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ResultsInvalid(f"{path} is not UTF-8 text; give a file of JSON lines") from error
    whole = _document(text)
    if whole is not None:
        found = whole["results"]["results"]
        return [(f"{path} result {number}", row) for number, row in enumerate(found, 1)]
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(f"{path}:{number}", _row(path, number, line, last=number == lines[-1][0])) for number, line in lines]


def _document(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    nested = found.get("results") if isinstance(found, dict) else None
    return found if isinstance(nested, dict) and isinstance(nested.get("results"), list) else None


def _row(path: Path, number: int, line: str, last: bool) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = "; the file may be truncated" if last else ""
        raise ResultsInvalid(f"{path}:{number} is not JSON ({error}){cut}: write the results again") from error
    if not isinstance(found, dict):
        raise ResultsInvalid(
            f'{path}:{number} holds {type(found).__name__}; a line is an object, {{"id": …, "score": …}}'
        )
    return found
