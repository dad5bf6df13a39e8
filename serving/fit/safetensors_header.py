"""The header of a safetensors file: names, dtypes and shapes, never the weights.

Format: 8 bytes little-endian length N, N bytes of JSON, then the data (github.com/huggingface/safetensors, "Format").
Everything in the header is checked against the file's size before it is used: its length, offsets, dtypes, and that
each shape times its dtype is the bytes it spans.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from serving.fit.strict_json import BadJson, is_int, parse_object, shown

LENGTH_BYTES = 8
# huggingface_hub's limit; the safetensors library's is 100 MB, which would take a minute and gigabytes to parse. The
# largest in public use, one file of 100,000 tensors, is about 12 MB.
MAX_HEADER_BYTES = 25_000_000
MAX_DIMENSIONS = 32
MAX_DIMENSION = 2**48
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F16": 16, "BF16": 16, "F32": 32, "F64": 64,
}  # fmt: skip


class HeaderInvalid(Exception):
    """A safetensors file, or the set of them, is not what its header, the index or config.json says."""


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str  # safetensors' word: F32, BF16, …
    shape: tuple[int, ...]
    nbytes: int  # in the file


def read_header(path: Path) -> tuple[Tensor, ...]:
    """Reads the first 8 + N bytes only. Raises HeaderInvalid."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = header_length(path.name, file.read(LENGTH_BYTES), size)
            header = file.read(length)
    except OSError as error:
        raise HeaderInvalid(f"{path.name} cannot be read ({error.strerror}). Fetch the model again.") from error
    return parse_header(path.name, header, size - LENGTH_BYTES - length)


def header_length(name: str, prefix: bytes, file_bytes: int) -> int:
    """N, checked against the size of the file. Raises HeaderInvalid."""
    length = int.from_bytes(prefix, "little")
    limit = min(MAX_HEADER_BYTES, file_bytes - LENGTH_BYTES)
    if len(prefix) != LENGTH_BYTES or not 2 <= length <= limit:
        raise _invalid(name, f"header of {length} bytes in a file of {file_bytes}", f"2 to {max(limit, 2)}")
    return length


def parse_header(name: str, header: bytes, data_bytes: int) -> tuple[Tensor, ...]:
    """Tensors in the order of their data. `name` is the file's, for messages. Raises HeaderInvalid."""
    try:
        entries = parse_object(header)
    except BadJson as error:
        raise _invalid(name, str(error), "a JSON object") from error
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid(name, "__metadata__ with other values than strings", "text for each key")
    placed = sorted(
        (_entry(name, key, value) for key, value in entries.items()), key=lambda item: (item[0], item[1].nbytes)
    )
    _check_cover(name, placed, data_bytes)
    return tuple(tensor for _, tensor in placed)


def _entry(name: str, key: str, value: object) -> tuple[int, Tensor]:
    """Where the tensor begins in the data, and the tensor."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(name, f"tensor {key[:80]!r} has other fields", "dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], _integers(value["shape"]), _integers(value["data_offsets"])
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _invalid(name, f"tensor {key[:80]!r} has dtype {shown(dtype)}", f"one of {', '.join(BITS)}")
    if shape is None or len(shape) > MAX_DIMENSIONS or offsets is None or len(offsets) != 2:
        raise _invalid(
            name, f"tensor {key[:80]!r} has a shape or offsets that are no sizes", "lists of non-negative integers"
        )
    begin, end = offsets
    bits = prod(shape) * BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise _invalid(name, f"tensor {key[:80]!r} spans {end - begin} bytes", f"its shape times {BITS[dtype]} bits")
    return begin, Tensor(key, dtype, shape, end - begin)


def _integers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(is_int(item) and 0 <= item <= MAX_DIMENSION for item in value):
        return None
    return tuple(value)


def _check_cover(name: str, placed: list[tuple[int, Tensor]], data_bytes: int) -> None:
    """The tensors follow each other without gap or overlap and fill the file, as the format demands."""
    position = 0
    for begin, tensor in placed:
        if begin != position:
            raise _invalid(name, f"tensor {tensor.name[:80]!r} begins at byte {begin} of the data", f"byte {position}")
        position += tensor.nbytes
    if position != data_bytes:
        raise _invalid(name, f"the tensors take {position} bytes and the file has {data_bytes}", "the same")


def _invalid(name: str, observed: str, required: str) -> HeaderInvalid:
    return HeaderInvalid(
        f"{name} has no valid safetensors header: {observed}; required: {required}. Fetch the file again."
    )
