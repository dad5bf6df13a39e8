"""A cheap check of a safetensors file: its header only, never the tensors' values.

The format is 8 bytes of little-endian header length, the header as JSON, then the data that the header's `data_offsets`
cut into tensors without gap or overlap (the safetensors format description, "Format"). A download that was cut short,
a header that points outside the file, and one that lies about sizes or names a tensor twice are found here.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

# The limit of the reference implementation (MAX_HEADER_SIZE in safetensors' tensor.rs).
MAX_HEADER_BYTES = 100_000_000
# Dtype in safetensors' tensor.rs.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip


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
        entries = json.loads(header, object_pairs_hook=_without_duplicates)
    except _DuplicateName as error:
        return f"names {error.args[0]!r} twice in its header"
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
        if (lie := _size_problem(name, entry, span[1] - span[0])) is not None:
            return lie
        spans.append((*span, name))
    return _coverage_problem(sorted(spans), data_size)


class _DuplicateName(ValueError):
    """Two readers of such a header may see two models."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise _DuplicateName(key)
        value[key] = item
    return value


def _size_problem(name: str, entry: dict[str, Any], span: int) -> str | None:
    """Where dtype and shape ask for another number of bytes than the offsets give; a dtype we do not know is passed."""
    shape = entry.get("shape")
    if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
        return f"has no valid shape for tensor {name!r}"
    bits = DTYPE_BITS.get(str(entry.get("dtype")))
    if bits is None or prod(shape) * bits == span * 8:
        return None
    return f"gives tensor {name!r} {span} bytes where its dtype and shape take {prod(shape) * bits / 8:g}"


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
