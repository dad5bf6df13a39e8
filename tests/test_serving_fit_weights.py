"""Weights from headers and from config.json alone: real and tiny models, each quantised format, and what does not add up."""

import json
from math import prod

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.fit import ModelShape, UnsupportedModel, Weights, parse_config, weights_from_config, weights_from_headers
from serving.fit.files import read_config, read_tensors, weight_files
from serving.fit.safetensors_header import BITS, HeaderInvalid, Tensor
from tests.fix_fit import (
    GIB,
    LLAMA_8B,
    QWEN25_05B,
    SMOLLM2,
    SMOLLM2_CONFIG,
    TINY,
    bf16_tensors,
    dense_shapes,
    shape_of,
    write_model,
)
from tests.fix_fit_points import load_points

# TINY: embedding 64 × 16; a layer: norms 2 × 16, q and o 16 × 16, k and v 8 × 16, gate, up, down 24 × 16; last norm 16.
TINY_PARAMETERS = 64 * 16 + 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16) + 16
TINY_ROTARY = 256 * 4  # positions × head_dim


def of_folder(folder) -> Weights:
    sizes = [path.stat().st_size for path in weight_files(folder)]
    return weights_from_headers(read_tensors(folder), read_config(folder), sizes)


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(name, dtype, shape, prod(shape) * BITS[dtype] // 8)


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2 is not set up")
def test_real_smollm2() -> None:
    """The file of 269,060,552 bytes holds 134,515,008 bfloat16 parameters, the count on its model card (135M)."""
    weights = of_folder(SMOLLM2)
    assert weights.disk_bytes == weights.largest_file_bytes == 269_060_552
    assert weights.on_gpu(2) == 2 * (134_515_008 + 8192 * 64)  # 49152 rows need no padding; rotary cache 8192 × 64
    assert weights_from_config(read_config(SMOLLM2)).on_gpu(2) == weights.on_gpu(2)


def test_float32_is_cast_to_the_dtype_served(tmp_path) -> None:
    weights = of_folder(write_model(tmp_path))
    assert weights.on_gpu(2) == 2 * (TINY_PARAMETERS + TINY_ROTARY)
    assert weights.on_gpu(4) == 2 * weights.on_gpu(2)
    assert weights.disk_bytes == (tmp_path / "model.safetensors").stat().st_size > 4 * TINY_PARAMETERS


def test_shards_and_a_stale_file_beside_them(tmp_path) -> None:
    whole, sharded = write_model(tmp_path / "whole"), write_model(tmp_path / "sharded", shards=3)
    save_file({"stale": np.zeros(5, np.float32)}, sharded / "old.safetensors")
    one, three = of_folder(whole), of_folder(sharded)
    assert one.on_gpu(2) == three.on_gpu(2)
    assert three.largest_file_bytes < three.disk_bytes
    assert sorted(tensor.name for tensor in read_tensors(sharded)) == sorted(dense_shapes(TINY))


@pytest.mark.parametrize(
    "config",
    [TINY, SMOLLM2_CONFIG, LLAMA_8B, QWEN25_05B, TINY | {"architectures": ["Qwen3ForCausalLM"]}],
    ids=["tiny", "SmolLM2", "Llama-3.1-8B", "Qwen2.5-0.5B", "Qwen3"],
)
@pytest.mark.parametrize("ways", [1, 2])
def test_config_alone_gives_what_the_headers_give(config, ways) -> None:
    """Up to what tensor parallel does with biases, which the config counts as split and the headers as whole."""
    model = shape_of(config)
    headers, alone = weights_from_headers(bf16_tensors(config), model), weights_from_config(model)
    assert alone.on_gpu(2, ways) == pytest.approx(headers.on_gpu(2, ways), rel=1e-3)
    assert alone.band > headers.band


def test_untied_embeddings_and_padded_vocabulary() -> None:
    config = TINY | {"tie_word_embeddings": False, "vocab_size": 65}
    parameters = TINY_PARAMETERS + 1 * 16 + 65 * 16
    padded = 2 * 63 * 16  # 65 → 128 rows, twice
    weights = weights_from_headers(bf16_tensors(config), shape_of(config))
    assert weights.on_gpu(2) == 2 * (parameters + padded + TINY_ROTARY)


def test_tensor_parallel_splits_matrices_and_replicates_norms_and_single_heads() -> None:
    """Two KV heads over four GPUs: each holds one. Norms and the rotary cache are whole, everything else a quarter."""
    norms = 2 * 2 * 16 + 16
    heads = 2 * 2 * 8 * 16
    split = TINY_PARAMETERS - norms - heads
    weights = weights_from_headers(bf16_tensors(TINY), shape_of(TINY))
    assert weights.on_gpu(2, 4) == 2 * (split // 4 + heads // 2 + norms + TINY_ROTARY)


def test_pipeline_parallel_shares_the_layers() -> None:
    layers = 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16)
    weights = weights_from_headers(bf16_tensors(TINY), shape_of(TINY))
    assert weights.on_gpu(2) - weights.on_gpu(2, 1, 2) == layers  # half of them, two bytes each


def test_a_stored_head_of_a_tied_model_is_not_counted() -> None:
    tied = bf16_tensors(TINY)
    with_head = weights_from_headers((*tied, tensor("lm_head.weight", "BF16", 64, 16)), shape_of(TINY))
    assert with_head.on_gpu(2) == weights_from_headers(tied, shape_of(TINY)).on_gpu(2)


def test_buffers_and_draft_layers_are_not_counted() -> None:
    more = (
        tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 32),
        tensor("mtp.layers.0.mlp.gate_proj.weight", "BF16", 24, 16),
    )
    weights = weights_from_headers((*bf16_tensors(TINY), *more), shape_of(TINY))
    assert weights.on_gpu(2) == 2 * (TINY_PARAMETERS + TINY_ROTARY)


MATRICES = {name: shape for name, shape in dense_shapes(TINY).items() if "_proj" in name}
IN_MATRICES = sum(prod(shape) for shape in MATRICES.values())


def quantised(parts) -> tuple[Tensor, ...]:
    """TINY with each matrix replaced by what `parts` makes of its base name, rows and columns."""
    kept = tuple(tensor for tensor in bf16_tensors(TINY) if tensor.name not in MATRICES)
    return kept + tuple(
        part
        for name, (rows, columns) in MATRICES.items()
        for part in parts(name.removesuffix(".weight"), rows, columns)
    )


FORMATS = {
    # 8 weights in an int32, a float16 scale and a 4-bit zero point for each group of 8 inputs
    "awq": lambda n, r, c: (
        tensor(f"{n}.qweight", "I32", c, r // 8), tensor(f"{n}.qzeros", "I32", c // 8, r // 8),
        tensor(f"{n}.scales", "F16", c // 8, r),
    ),
    "fp8": lambda n, r, c: (tensor(f"{n}.weight", "F8_E4M3", r, c), tensor(f"{n}.weight_scale", "F32", r, 1)),
    "bitsandbytes": lambda n, r, c: (
        tensor(f"{n}.weight", "U8", r * c // 2, 1), tensor(f"{n}.weight.absmax", "U8", r * c // 64 or 1),
        tensor(f"{n}.weight.quant_state.bitsandbytes__nf4", "U8", 90),
    ),
    "compressed-tensors": lambda n, r, c: (
        tensor(f"{n}.weight_packed", "I32", r, c // 8), tensor(f"{n}.weight_scale", "BF16", r, c // 8),
        tensor(f"{n}.weight_shape", "I64", 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", FORMATS)
def test_quantised_tensors_count_as_they_are_stored(method) -> None:
    tensors = quantised(FORMATS[method])
    weights = weights_from_headers(tensors, shape_of(TINY))
    stored = sum(t.nbytes for t in tensors if t.dtype not in ("F16", "BF16", "F32"))
    floats = sum(prod(t.shape) for t in tensors if t.dtype in ("F16", "BF16", "F32"))
    largest = max(t.nbytes for t in tensors if t.dtype not in ("F16", "BF16", "F32") and len(t.shape) > 1)
    assert weights.on_gpu(2) == stored + 2 * (floats + TINY_ROTARY) + largest
    assert weights.on_gpu(2, repack=False) == stored + 2 * (floats + TINY_ROTARY)


@pytest.mark.parametrize(
    ("word", "bits"),
    [
        ("awq", 4 + 20 / 128),
        ("gptq-int4", 4 + 16 / 128),
        ("fp8", 8),
        ("int8-w8a8", 8),
        ("bitsandbytes-4bit", 4 + 8 / 64 + 32 / 16384),
        ("nvfp4", 4.5),
    ],
)
def test_words_for_quantised_weights(word, bits) -> None:
    """The matrices of Llama-3.1-8B shrink to `bits` each; the embeddings stay in 16."""
    model = shape_of(LLAMA_8B)
    matrices = 32 * (4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    plain, small = weights_from_config(model), weights_from_config(model, word)
    saved = plain.on_gpu(2) - small.on_gpu(2, repack=False)
    assert saved == pytest.approx(matrices * (2 - bits / 8), rel=0.002)
    assert small.band > plain.band


def test_runtime_fp8_of_a_16_bit_checkpoint() -> None:
    """Llama-3.1-70B with --quantization fp8 logs 67.7 GiB."""
    point = next(p for p in load_points() if p.row["quantization"] == "fp8 (runtime)")
    config = LLAMA_8B | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    }
    tensors = bf16_tensors(config)
    found = weights_from_headers(tensors, shape_of(config), quantization="fp8").on_gpu(2) / GIB
    assert found == pytest.approx(point.row["weights_gib"], rel=0.005)


@pytest.mark.parametrize(
    "point", [p for p in load_points() if p.scored and p.weights_error is not None], ids=lambda p: p.name
)
def test_logged_weights(point) -> None:
    """Within 2 %, save checkpoints whose quantised modules no source states, and forks."""
    unstated = (
        "unsloth merged",
        "NVFP4 (Inferact)",
        "awq int4 (gemma",
        "AWQ int4 (gemma",
        "E2B",
        "Coder-V2-Lite",
        "gpt-oss-20b",
    )
    limit = 0.03 if "gpt-oss-20b" in point.row["model"] else 0.02
    if any(word in point.row["model"] for word in unstated) and "gpt-oss" not in point.row["model"]:
        limit = 3.0
    assert abs(point.weights_error) <= limit


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("deepseek-ai__DeepSeek-V2.5", 235.7),  # model cards and papers
        ("meta-llama__Llama-4-Scout-17B-16E-Instruct", 108.6),
        ("Qwen__Qwen3-235B-A22B-FP8", 235.1),
        ("mistralai__Mixtral-8x7B-Instruct-v0.1", 46.7),
        ("google__gemma-2-27b-it", 27.2),
        ("google__gemma-3-27b-it", 27.4),
        ("microsoft__phi-4", 14.7),
        ("microsoft__phi-2", 2.78),
        ("OpenGVLab__InternVL3-78B", 78.4),
        ("facebook__opt-6.7b", 6.66),
        ("llava-hf__llava-v1.6-mistral-7b-hf", 7.57),
    ],
)
def test_parameters_of_published_models(name, billions) -> None:
    model = _model(name)
    values = sum(_values(piece) for piece in weights_from_config(_plain(model)).pieces[:-2])
    assert values / 1e9 == pytest.approx(billions, rel=0.01)


def _model(name: str) -> ModelShape:
    config = next(p.config for p in load_points() if p.row.get("config") == f"{name}.json")
    return parse_config(config)


def _plain(model: ModelShape) -> ModelShape:
    return ModelShape(**(vars(model) | {"quantisation": None}))


def _values(piece) -> int:
    return int(piece.values)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 128},
        {"hidden_size": 32},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 4096},
        {"tie_word_embeddings": False},
        {"intermediate_size": 32},
    ],
)
def test_weights_of_another_config_are_refused(change) -> None:
    with pytest.raises(HeaderInvalid, match=r"by config\.json"):
        weights_from_headers(bf16_tensors(TINY), shape_of(TINY | change))


def test_a_missing_matrix_is_refused() -> None:
    lacking = [tensor for tensor in bf16_tensors(TINY) if "layers.1.mlp.down_proj" not in tensor.name]
    with pytest.raises(HeaderInvalid, match=r"layers\.1\.mlp\.down_proj is absent"):
        weights_from_headers(lacking, shape_of(TINY))


def test_a_quantisation_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="quantization is 'exl2'"):
        weights_from_config(shape_of(TINY), "exl2")


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
