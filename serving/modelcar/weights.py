"""A cheap check of a safetensors file: its header only, never the tensors' values.

The format is 8 bytes of little-endian header length, the header as JSON, then the data that the header's `data_offsets`
cut into tensors without gap or overlap (the safetensors format description, "Format"). A download that was cut short
and a header that points outside the file are both found here.
"""

import json
import struct
from pathlib import Path
from typing import Any

# The limit of the reference implementation (MAX_HEADER_SIZE in safetensors' tensor.rs).
MAX_HEADER_BYTES = 100_000_000


def safetensors_problem(path: Path, size: int) -> str | None:
    """What is wrong with the file's header, as the observed half of a sentence, or None."""
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return f"has {size} bytes, too few for a header"
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            return f"declares a header of {length} bytes in a file of {size}"
        return header_problem(file.read(length), size - 8 - length)


def header_problem(header: bytes, data_size: int) -> str | None:
    """The same for a header already read; `data_size` is the number of bytes after it."""
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        return "has a header that is not JSON"
    if not isinstance(entries, dict):
        return "has a header that is not a JSON object"
    entries.pop("__metadata__", None)
    spans = []
    for name, entry in entries.items():
        span = _span(entry)
        if span is None:
            return f"has no valid data_offsets for tensor {name!r}"
        spans.append((*span, name))
    return _coverage_problem(sorted(spans), data_size)


def _span(entry: Any) -> tuple[int, int] | None:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        return None
    begin, end = offsets
    return (begin, end) if 0 <= begin <= end else None


def _coverage_problem(spans: list[tuple[int, int, str]], data_size: int) -> str | None:
    position = 0
    for begin, end, name in spans:
        if end > data_size:
            return f"places tensor {name!r} at bytes {begin} to {end} of {data_size}"
        if begin != position:
            return f"has {'overlapping' if begin < position else 'unused'} bytes before tensor {name!r}"
        position = end
    return None if position == data_size else f"has {data_size - position} bytes after its last tensor"
