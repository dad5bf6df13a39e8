"""Malformed config.json and safetensors headers: always one clear error of bad input, never a traceback or a verdict.

Each example is wrong in a known way, so a report is a failure. 2,000 of them run with the suite and 10,000 in the slow
test. A second strategy changes anything anywhere, and a report is then allowed only if its numbers hold together.
"""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.fit import EngineFlags, find_gpu
from serving.fit.fit_files import fit_files
from serving.fit.model_reader import read_model
from serving.fit.report import FitReport
from tasks.exit_codes import code_of
from tests.fix_fit import TINY, dense_shapes

SECONDS = 2.0  # for one example; a hang would be far above
REQUIRED = ("architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip
BAD_INPUT = 2
WRONG_SIZES = st.one_of(
    st.integers(max_value=0),
    st.integers(min_value=2**31),
    st.floats(),
    st.booleans(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
MANY = settings(max_examples=2000, suppress_health_check=list(HealthCheck), database=None)
TEN_THOUSAND = settings(MANY, max_examples=10_000)


@dataclass(frozen=True)
class MemoryStore:
    files: dict[str, bytes]
    name: str = "fuzzed"
    names: tuple[str, ...] = ("fuzzed",)
    origin: str = "memory"
    parallel: int = 1

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items()}

    def read(self, file: str, start: int, size: int) -> bytes:
        return self.files[file][start : start + size]


def header_of(config: dict[str, Any]) -> dict[str, Any]:
    """As the safetensors library lays it out, without its bytes."""
    entries: dict[str, Any] = {}
    position = 0
    for name, shape in sorted(dense_shapes(config).items()):
        size = 4
        for one in shape:
            size *= one
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return entries


HEADER = header_of(TINY)
DATA_BYTES = max(entry["data_offsets"][1] for entry in HEADER.values())
CONFIG_BYTES = json.dumps(TINY).encode()


def shard(header: bytes, length: int | None = None, data_bytes: int = DATA_BYTES) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(data_bytes)


GOOD = shard(json.dumps(HEADER).encode())


def verdict(config: bytes, weights: bytes) -> FitReport:
    files = read_model(MemoryStore({"config.json": config, "model.safetensors": weights}))
    return fit_files(files, (), find_gpu("nvidia-l4"), EngineFlags(), "0.23.0")


@st.composite
def bad_config(draw: st.DrawFn) -> bytes:
    """A config.json that is not JSON, not an object, or wrong in a field that decides memory."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        text = draw(st.binary(max_size=200))
        return text if not text.lstrip().startswith(b"{") else b"x" + text
    if kind == 1:
        return json.dumps(draw(ANY_JSON.filter(lambda value: not isinstance(value, dict)))).encode()
    if kind == 2:
        return CONFIG_BYTES[: draw(st.integers(0, len(CONFIG_BYTES) - 2))]
    if kind == 3:
        name = draw(st.sampled_from(REQUIRED))
        return json.dumps({key: value for key, value in TINY.items() if key != name}).encode()
    if kind == 4:
        name, value = draw(st.sampled_from(SIZES)), draw(WRONG_SIZES)
        return json.dumps(TINY | {name: value}).encode()
    if kind == 5:
        key = draw(st.sampled_from(sorted(TINY)))
        return CONFIG_BYTES[:-1] + b', "' + key.encode() + b'": 1}'  # twice the same key
    if kind == 6:
        constant = draw(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 5000]))
        return CONFIG_BYTES[:-1] + b', "x": ' + constant.encode() + b"}"
    depth = draw(st.sampled_from([101, 500, 5_000, 20_000]))
    return CONFIG_BYTES[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"


@st.composite
def bad_shard(draw: st.DrawFn) -> bytes:
    """A weight file whose header is broken, lies about the data, or is not of the config's tensors."""
    kind = draw(st.integers(0, 8))
    header = json.loads(json.dumps(HEADER))
    name = draw(st.sampled_from(sorted(header)))
    if kind == 0:
        data = draw(st.binary(max_size=100))
        return data if len(data) < 8 or data[8:9] != b"{" else b"\xff" * 8 + data
    if kind == 1:
        text = json.dumps(header).encode()
        wrong = st.integers(0, 2**64 - 1).filter(lambda value: value != len(text))
        return shard(text, draw(wrong))
    if kind == 2:
        return GOOD[: draw(st.integers(0, len(GOOD) - 1))]
    if kind == 3:
        return GOOD + draw(st.binary(min_size=1, max_size=20))
    if kind == 4:
        del header[name]
    elif kind == 5:
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        header[name][field] = draw(ANY_JSON.filter(lambda value: value != header[name][field]))
    elif kind == 6:
        moved = draw(st.integers(-(2**65), 2**65).filter(bool))
        header[name]["data_offsets"] = [offset + moved for offset in header[name]["data_offsets"]]
    elif kind == 7:
        return shard(json.dumps(header)[:-1].encode() + b', "' + name.encode() + b'": {}}')
    else:
        header["__metadata__"] = draw(ANY_JSON.filter(lambda value: not _is_metadata(value)))
    return shard(json.dumps(header).encode())


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


MALFORMED = st.one_of(st.tuples(bad_config(), st.just(GOOD)), st.tuples(st.just(CONFIG_BYTES), bad_shard()))


def refusal(config: bytes, weights: bytes) -> tuple[int, bool]:
    """The exit code of the error, and whether it came in time with a message of a sentence or two."""
    started = time.monotonic()
    with pytest.raises(Exception) as caught:  # the class is judged by its exit code
        verdict(config, weights)
    return code_of(caught.value), 20 < len(str(caught.value)) < 1500 and time.monotonic() - started < SECONDS


def test_the_unchanged_model_gets_a_verdict() -> None:
    """Else every example below would pass."""
    assert verdict(CONFIG_BYTES, GOOD).verdict == "fits"


@MANY
@given(MALFORMED)
def test_malformed_input_is_an_error_of_bad_input(example: tuple[bytes, bytes]) -> None:
    assert refusal(*example) == (BAD_INPUT, True)


@pytest.mark.slow
@TEN_THOUSAND
@given(MALFORMED)
def test_ten_thousand_malformed_inputs(example: tuple[bytes, bytes]) -> None:
    assert refusal(*example) == (BAD_INPUT, True)


@settings(MANY, max_examples=500)
@given(st.sampled_from([*sorted(TINY), "head_dim", "quantization_config", "rope_scaling", "layer_types", "auto_map",
                        "sliding_window", "text_config", "num_experts", "kv_lora_rank", "dtype"]), ANY_JSON)  # fmt: skip
def test_any_value_in_any_field_is_refused_or_gives_sound_numbers(field: str, value: object) -> None:
    assert is_sound(json.dumps(TINY | {field: value}).encode(), GOOD)


@settings(MANY, max_examples=500)
@given(
    st.integers(0, len(CONFIG_BYTES) - 1), st.integers(8, len(GOOD) - DATA_BYTES - 1), st.binary(min_size=1, max_size=3)
)
def test_changed_bytes_are_refused_or_give_sound_numbers(at: int, header_at: int, change: bytes) -> None:
    assert is_sound(CONFIG_BYTES[:at] + change + CONFIG_BYTES[at + len(change) :], GOOD)
    assert is_sound(CONFIG_BYTES, GOOD[:header_at] + change + GOOD[header_at + len(change) :])


def is_sound(config: bytes, weights: bytes) -> bool:
    """Refused as bad input, or a report whose numbers hold together."""
    try:
        report = verdict(config, weights)
    except Exception as error:  # noqa: BLE001 - any class may come; its exit code is what is judged
        return code_of(error) == BAD_INPUT
    parts = report.weights_bytes + report.activation_bytes + report.cuda_graph_bytes + report.non_torch_bytes
    return (
        0 < report.weights_bytes <= parts
        and report.usable_bytes <= report.total_bytes == find_gpu("nvidia-l4").memory_bytes
        and 0 <= report.kv_cache_bytes <= max(report.usable_bytes - parts, 0)
        and report.max_model_len_fits >= 0
        and report.uncertainty_bytes > 0
    )
