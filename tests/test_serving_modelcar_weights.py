"""The header check agrees with the safetensors library, and finds the damage that must not be served."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from serving.modelcar.weights import MAX_HEADER_BYTES, header_problem, safetensors_problem


def problem_of(path: Path, data: bytes) -> str | None:
    path.write_bytes(data)
    return safetensors_problem(path, len(data))


def packed(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def test_a_file_of_the_library_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"a": np.zeros((3, 4), np.float16), "b": np.ones(5, np.int8), "empty": np.zeros((0, 2), np.float32)}
    save_file(tensors, path, metadata={"format": "pt"})
    assert safetensors_problem(path, path.stat().st_size) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too few"),
        (b"\x01\x00\x00", "too few"),
        (struct.pack("<Q", 100) + b"{}", "declares a header of 100 bytes"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", "declares a header"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "declares a header"),
        (struct.pack("<Q", 4) + b"\x80\x04N.", "not JSON"),
        (packed([1], b""), "not a JSON object"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "names 'a' twice"),
        (packed({"a": tensor(0, 4) | {"shape": [9]}}, b"abcd"), "4 bytes where its dtype and shape take 9"),
        (packed({"a": tensor(0, 4) | {"dtype": "F32", "shape": [2]}}, b"abcd"), "take 8"),
        (packed({"a": tensor(0, 4) | {"shape": "x"}}, b"abcd"), "no valid shape"),
        (packed({"a": tensor(0, 4) | {"shape": [-4]}}, b"abcd"), "no valid shape"),
        (packed({"a": {"dtype": "U8", "shape": [1]}}, b"x"), "no valid data_offsets for tensor 'a'"),
        (packed({"a": tensor(3, 1)}, b"xxxx"), "no valid data_offsets"),
        (packed({"a": tensor(-1, 1)}, b"x"), "no valid data_offsets"),
        (packed({"a": {"data_offsets": [0, True]}}, b"x"), "no valid data_offsets"),
        (packed({"a": 3}, b""), "no valid data_offsets"),
        (packed({"a": tensor(0, 8)}, b"xxxx"), "bytes 0 to 8 of 4"),
        (packed({"a": tensor(0, 3), "b": tensor(2, 4)}, b"xxxx"), "overlapping bytes before tensor 'b'"),
        (packed({"a": tensor(0, 1), "b": tensor(2, 4)}, b"xxxx"), "unused bytes before tensor 'b'"),
        (packed({"a": tensor(0, 3)}, b"xxxx"), "1 bytes after its last tensor"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    observed = problem_of(tmp_path / "x", data)
    assert observed is not None
    assert words in observed


def test_a_deep_header_is_refused_not_crashed() -> None:
    assert header_problem(b'{"a":' * 100_000, 0) == "has a header that is not JSON"


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_file_cut_short_is_found_wherever_the_library_finds_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.safetensors"
    save_file({"a": np.arange(20, dtype=np.float32)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    problem = safetensors_problem(path, path.stat().st_size)
    assert (problem is None) == (cut == 0) == readable(path)


@given(offsets=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=4))
def test_what_passes_the_library_also_reads(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("spans") / "a.safetensors"
    header = {
        f"t{number}": {"dtype": "U8", "shape": [max(end - begin, 0)], "data_offsets": [begin, end]}
        for number, (begin, end) in enumerate(offsets)
    }
    data = packed(header, bytes(12))
    assert (problem_of(path, data) is None) == readable(path)


def readable(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy"):
            return True
    except SafetensorError:
        return False
