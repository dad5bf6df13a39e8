"""JSON objects from files that others wrote: bounded size and depth, no duplicate keys, no NaN, one object at the top.

It does not know what the object means; each caller turns BadJson into its own error.
"""

import json
from math import isfinite
from pathlib import Path
from typing import TypeGuard

MAX_FILE_BYTES = 64 * 1024 * 1024  # an index of a 100,000-tensor model is about 10 MB
MAX_DEPTH = 100  # of nested objects and lists; the deepest config.json in public use has 6


class BadJson(ValueError):
    """The bytes are not one JSON object."""


def parse_object(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:  # ValueError: syntax, encoding, and integers of over 4,300 digits
        raise BadJson(f"not valid JSON ({str(error)[:120] or type(error).__name__})") from error
    _check_depth(value)
    if not isinstance(value, dict):
        raise BadJson(f"a JSON object was expected, found {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, object]:
    """Raises BadJson also when the file is missing, unreadable, or over MAX_FILE_BYTES."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadJson(f"{size} bytes, at most {MAX_FILE_BYTES} are read")
        return parse_object(path.read_bytes())
    except OSError as error:
        raise BadJson(error.strerror or type(error).__name__) from error


def is_int(value: object) -> TypeGuard[int]:
    """JSON's true is an int in Python; here it is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: object) -> str:
    """For messages: a scalar in at most 40 characters, a structure by its kind."""
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else repr(value)[:40]


def _no_constant(word: str) -> float:
    raise BadJson(f"{word} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise BadJson(f"the number {text[:20]} is out of range")
    return number


def _check_depth(value: object) -> None:
    """Later code recurses over the value or prints it; level by level, so that this check does not recurse itself."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise BadJson(f"nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("the same key occurs twice")
    return found
