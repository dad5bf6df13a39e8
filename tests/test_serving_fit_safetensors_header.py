"""Safetensors headers: equal to what the safetensors library wrote, and every lie in them is found before use."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from serving.fit.safetensors_header import HeaderInvalid, Tensor, header_length, parse_header, read_header

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def encoded(header: object) -> bytes:
    return json.dumps(header).encode()


def test_equal_to_the_library(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    arrays = {
        "x.weight": np.zeros((3, 5), np.float32),
        "y": np.zeros((7,), np.float16),
        "empty": np.zeros((0, 4), np.float32),
    }
    save_file(arrays, path, metadata={"format": "pt"})
    found = {tensor.name: tensor for tensor in read_header(path)}
    with safe_open(path, framework="np") as file:
        assert set(found) == set(file.keys())
        for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            piece = file.get_slice(name)
            assert found[name] == Tensor(name, piece.get_dtype(), tuple(piece.get_shape()), arrays[name].nbytes)


def test_good_header() -> None:
    assert parse_header("f", encoded(GOOD | {"__metadata__": {"format": "pt"}}), 32) == (
        Tensor("a", "F32", (2, 3), 24),
        Tensor("b", "BF16", (4,), 8),
    )


def changed(**fields: object) -> dict:
    return GOOD | {"a": GOOD["a"] | fields}


@pytest.mark.parametrize(
    ("header", "data_bytes"),
    [
        (GOOD, 31),
        (GOOD, 33),
        (changed(shape=[2, 4]), 32),
        (changed(dtype="F16"), 32),
        (changed(dtype="Q4"), 32),
        (changed(dtype=None), 32),
        (changed(data_offsets=[24, 0]), 32),
        (changed(data_offsets=[8, 32]), 32),
        (changed(data_offsets=[-24, 0]), 32),
        (changed(data_offsets=[0, 24, 48]), 32),
        (changed(data_offsets=[0.0, 24.0]), 32),
        (changed(shape=[True, 6]), 32),
        (changed(shape=[-2, -3]), 32),
        (changed(shape=[1] * 40), 32),
        (changed(shape=[2**47] * 32), 32),
        (changed(shape="23"), 32),
        (changed(extra=1), 32),
        (GOOD | {"a": 3}, 32),
        (GOOD | {"__metadata__": {"format": 1}}, 32),
        (GOOD | {"__metadata__": []}, 32),
        (GOOD | {"c": {"dtype": "F4", "shape": [3], "data_offsets": [32, 33]}}, 33),
        ([], 0),
    ],
)
def test_lies_are_found(header, data_bytes) -> None:
    with pytest.raises(HeaderInvalid, match=r"f has no valid safetensors header: .*; required: .*\. Fetch"):
        parse_header("f", encoded(header), data_bytes)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": 1, "a": 1}', b"\xff\xfe{}", b"[" * 200_000, b'{"a":' * 5000, b"9" * 5000]
)
def test_header_that_is_no_json(raw) -> None:
    with pytest.raises(HeaderInvalid):
        parse_header("f", raw, 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x02", b"\xff" * 8 + b"{}", (3).to_bytes(8, "little") + b"{}", (0).to_bytes(8, "little"), b"GGUF" * 9],
)
def test_lengths_are_checked_against_the_file(tmp_path, content) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(HeaderInvalid):
        read_header(path)


def test_a_header_of_over_25_mb_is_not_read() -> None:
    with pytest.raises(HeaderInvalid, match="25000001"):
        header_length("f", (25_000_001).to_bytes(8, "little"), 10**12)


def test_missing_file_and_folder(tmp_path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(HeaderInvalid, match="cannot be read"):
            read_header(path)


VALUE = st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.lists(st.integers(-3, 2**64), max_size=4)
FIELDS = st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), VALUE | st.sampled_from(["F32", "F4"]))


@given(st.dictionaries(st.text(max_size=4), VALUE | FIELDS, max_size=4), st.integers(0, 100))
def test_fuzzed_headers_raise_only_header_invalid(header, data_bytes) -> None:
    try:
        tensors = parse_header("f", encoded(header), data_bytes)
    except HeaderInvalid:
        return
    assert sum(tensor.nbytes for tensor in tensors) == data_bytes


@given(st.binary(max_size=200), st.booleans())
def test_fuzzed_files_raise_only_header_invalid(tmp_path_factory, content, framed) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if framed else content)
    try:
        assert read_header(path) == ()
    except HeaderInvalid:
        return
