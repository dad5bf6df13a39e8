"""Weights from headers: the real SmolLM2, tiny models in one and in several files, and folders that do not add up."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.fit.config import UnsupportedModel
from serving.fit.preflight import read_config
from serving.fit.safetensors_header import HeaderInvalid, Tensor
from serving.fit.weights import measure, read_tensors, weights_bytes
from tests.fix_fit import (
    SMOLLM2,
    TINY,
    bf16_tensors,
    dense_shapes,
    measured_config,
    measured_points,
    shape_of,
    write_model,
)

# TINY: embedding 64 × 16; a layer: norms 2 × 16, q and o 16 × 16, k and v 8 × 16, gate, up, down 24 × 16; last norm 16.
TINY_PARAMETERS = 64 * 16 + 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16) + 16
TINY_ROTARY = 256 * 4  # positions × head_dim


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2 is not set up")
def test_real_smollm2() -> None:
    """The file of 269,060,552 bytes holds 134,515,008 bfloat16 parameters, the count on its model card (135M)."""
    weights = measure(SMOLLM2, read_config(SMOLLM2), 2)
    assert weights.disk_bytes == weights.largest_file_bytes == 269_060_552
    assert sum(tensor.nbytes for tensor in read_tensors(SMOLLM2)) == 2 * 134_515_008
    assert weights.served_bytes == 2 * (134_515_008 + 8192 * 64)  # 49152 rows need no padding; rotary cache 8192 × 64


def test_float32_is_cast_to_the_dtype_served(tmp_path) -> None:
    weights = measure(write_model(tmp_path), shape_of(TINY), 2)
    assert weights.served_bytes == 2 * (TINY_PARAMETERS + TINY_ROTARY)
    assert weights.disk_bytes == (tmp_path / "model.safetensors").stat().st_size > 4 * TINY_PARAMETERS


def test_shards_and_a_stale_file_beside_them(tmp_path) -> None:
    whole, sharded = write_model(tmp_path / "whole"), write_model(tmp_path / "sharded", shards=3)
    save_file({"stale": np.zeros(5, np.float32)}, sharded / "old.safetensors")
    one, three = measure(whole, shape_of(TINY), 2), measure(sharded, shape_of(TINY), 2)
    assert one.served_bytes == three.served_bytes
    assert three.largest_file_bytes < three.disk_bytes
    assert sorted(tensor.name for tensor in read_tensors(sharded)) == sorted(dense_shapes(TINY))


def test_untied_embeddings_and_padded_vocabulary() -> None:
    config = TINY | {"tie_word_embeddings": False, "vocab_size": 65}
    parameters = TINY_PARAMETERS + 1 * 16 + 65 * 16
    padded = 2 * 63 * 16  # 65 → 128 rows, twice
    assert weights_bytes(bf16_tensors(config), shape_of(config), 2) == 2 * (parameters + padded + TINY_ROTARY)


def test_a_stored_head_of_a_tied_model_is_not_counted() -> None:
    head = Tensor("lm_head.weight", "BF16", (64, 16), 2048)
    tied = bf16_tensors(TINY)
    assert weights_bytes((*tied, head), shape_of(TINY), 2) == weights_bytes(tied, shape_of(TINY), 2)


def test_buffers_that_vllm_computes_are_not_counted() -> None:
    buffer = Tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "I64", (32,), 256)
    assert weights_bytes((*bf16_tensors(TINY), buffer), shape_of(TINY), 2) == 2 * (TINY_PARAMETERS + TINY_ROTARY)


@pytest.mark.parametrize(
    "point", [point for point in measured_points() if "weights_gib" in point], ids=lambda point: point["model"]
)
def test_logged_weights_of_real_models(point) -> None:
    config = measured_config(point["config"])
    served = weights_bytes(bf16_tensors(config), shape_of(config), 2) / 1024**3
    assert served == pytest.approx(point["weights_gib"], rel=0.01)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I32", "U8"])
def test_quantised_weights_are_refused(dtype) -> None:
    first, *rest = bf16_tensors(TINY)
    with pytest.raises(UnsupportedModel, match=dtype):
        weights_bytes((Tensor(first.name, dtype, first.shape, 1), *rest), shape_of(TINY), 2)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 128},
        {"hidden_size": 32},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 2**31 - 1},
        {"tie_word_embeddings": False},
    ],
)
def test_weights_of_another_config_are_refused(change) -> None:
    with pytest.raises(HeaderInvalid, match=r"by config\.json"):
        weights_bytes(bf16_tensors(TINY), shape_of(TINY | change), 2)


@pytest.mark.parametrize(
    "index",
    ["{", "{}", '{"weight_map": {}}', '{"weight_map": []}']
    + [
        json.dumps({"weight_map": {"a": name}})
        for name in (
            "../x.safetensors",
            "/etc/x.safetensors",
            "x.bin",
            3,
            "\ud800.safetensors",
            "a\0.safetensors",
            "absent.safetensors",
        )
    ],
)
def test_broken_index(tmp_path, index) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(HeaderInvalid):
        read_tensors(tmp_path)


def test_the_same_tensor_in_two_files(tmp_path) -> None:
    write_model(tmp_path)
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(HeaderInvalid, match="two files"):
        read_tensors(tmp_path)


def test_pickled_weights_and_empty_folder(tmp_path) -> None:
    with pytest.raises(HeaderInvalid, match="found: none"):
        read_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(HeaderInvalid, match=r"pickled weights \(pytorch_model\.bin\)"):
        read_tensors(tmp_path)


def test_truncated_file(tmp_path) -> None:
    path = write_model(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(HeaderInvalid):
        read_tensors(tmp_path)
