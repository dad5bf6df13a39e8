"""Each part against numbers worked out by hand, or logged by vLLM."""

import pytest

from serving.fit.engines import UnknownEngine, find_engine
from serving.fit.flags import ServedFlags
from serving.fit.parts import (
    activation_bytes,
    cuda_graph_bytes,
    kv_bytes,
    kv_bytes_per_token,
    kv_tokens,
    lora_bytes,
    uncertainty_bytes,
)
from tests.fix_fit import (
    GIB,
    LLAMA_8B,
    QWEN25_05B,
    SMOLLM2_CONFIG,
    TINY,
    measured_config,
    measured_points,
    roomy_gpu,
    shape_of,
)

MIB = 1024**2
SERVED = ServedFlags(0.92, 256, 256, 2048, "bfloat16", "auto", 0, 16, False)


def served(**changes: object) -> ServedFlags:
    return ServedFlags(**(vars(SERVED) | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN25_05B, 12_288),  # keys and values 2 × 24 layers × 2 KV heads × 64 × 2 bytes
        (LLAMA_8B, 131_072),  # 2 × 32 × 8 × 128 × 2: the "128 KiB a token" of Llama 3
        (SMOLLM2_CONFIG, 23_040),  # 2 × 30 × 3 × 64 × 2
    ],
    ids=["Qwen2.5-0.5B", "Llama-3.1-8B", "SmolLM2-135M"],
)
def test_kv_bytes_of_a_token(config, expected) -> None:
    assert kv_bytes_per_token(shape_of(config), "auto") == expected
    assert kv_bytes_per_token(shape_of(config), "fp8") == expected // 2


@pytest.mark.parametrize(
    "point", [point for point in measured_points() if "kv_tokens" in point and "block_size" not in point], ids=str
)
def test_logged_kv_cache_holds_the_logged_tokens(point) -> None:
    """vLLM logs the available GiB in two decimals and the tokens with the null block."""
    block = kv_bytes_per_token(shape_of(measured_config(point["config"])), "auto") * 16
    low, high = (kv_tokens(int((point["kv_cache_gib"] + error) * GIB), block) for error in (-0.0051, 0.0051))
    assert low <= point["kv_tokens"] - 16 <= high


def test_kv_of_one_sequence_is_whole_blocks_and_the_null_block() -> None:
    model = shape_of(SMOLLM2_CONFIG)
    assert [kv_bytes(model, tokens, "auto") // 23_040 for tokens in (1, 16, 17, 8192)] == [32, 32, 48, 8208]
    assert [kv_tokens(23_040 * 16 * blocks, 23_040 * 16) for blocks in (0, 1, 2, 513)] == [0, 0, 16, 8192]


def test_lora_slots_of_llama_3_1_8b() -> None:
    """A layer: q 4096+4096, k and v 4096+1024 each, o 4096+4096, gate and up 4096+14336 each, down 14336+4096.

    Together 81,920; × 32 layers, + embeddings and head 2 × (128256 + 4096); × 2 slots × rank 16 × 2 bytes. vLLM logged
    14.99 GiB without and 15.17 GiB with two slots of rank 16.
    """
    found = lora_bytes(shape_of(LLAMA_8B), 2, 16)
    assert found == (81_920 * 32 + 2 * 132_352) * 2 * 16 * 2
    assert found / GIB == pytest.approx(15.17 - 14.99, abs=0.01)


def test_lora_slots_without_embeddings() -> None:
    """Qwen2.5-0.5B: q 1792, k and v 1024 each, o 1792, gate, up and down 5760 each = 22,912 a layer."""
    assert lora_bytes(shape_of(QWEN25_05B), 1, 8) == 22_912 * 24 * 8 * 2
    assert lora_bytes(shape_of(QWEN25_05B), 0, 64) == 0


@pytest.mark.parametrize(
    "point",
    [p for p in measured_points() if p.get("activation_gib")],
    ids=lambda p: p["model"] + str(p.get("vllm_version")),
)
def test_logged_activation(point) -> None:
    """On an H100 the engine's defaults are 1024 sequences and 8192 batched tokens."""
    engine = find_engine(point.get("vllm_version") or point["vllm_version_assumed"])
    flags = served(max_num_seqs=1024, max_num_batched_tokens=8192)
    found = activation_bytes(shape_of(measured_config(point["config"])), flags, engine)
    assert found / GIB == pytest.approx(point["activation_gib"], rel=0.1)


def test_activation_by_hand() -> None:
    """TINY with T = 512, S = 4: hidden 3 × 512 × 16 × 2; sampler 4 × 64 × 14 is below the layer 512 × 3 × 24 × 2."""
    engine = find_engine("0.23.0")
    few = served(max_num_seqs=4, max_num_batched_tokens=512)
    assert activation_bytes(shape_of(TINY), few, engine) == 49_152 + 73_728
    with_lora = served(max_num_seqs=4, max_num_batched_tokens=512, max_loras=1, max_lora_rank=8)
    assert activation_bytes(shape_of(TINY), with_lora, engine) == 49_152 + 73_728 + 3 * 512 * 8 * 4


@pytest.mark.parametrize(
    ("layers", "logged"), [(28, 0.88), (32, 0.76), (40, 0.98), (40, 1.07), (46, 1.23)], ids=lambda value: str(value)
)
def test_logged_cuda_graphs(layers, logged) -> None:
    """vLLM 0.19 on an H100: Qwen2.5-7B, phi-2, granite-8B, phi-4, Gemma-2-27B."""
    found = cuda_graph_bytes(
        shape_of(TINY | {"num_hidden_layers": layers}), served(max_num_seqs=1024, max_num_batched_tokens=8192)
    )
    assert found / GIB == pytest.approx(logged, rel=0.3)


def test_cuda_graphs_follow_the_capture_sizes() -> None:
    """256 sequences: 51 sizes up to 512. One sequence: 1 and 2. 64 tokens a batch: 1, 2, 4 and 8 to 64 by 8 make 11."""
    model = shape_of(TINY | {"num_hidden_layers": 30})
    whole = (102 + 17 * 30) * MIB
    assert cuda_graph_bytes(model, SERVED) == 307 * MIB + whole
    assert cuda_graph_bytes(model, served(max_num_seqs=1)) == 307 * MIB + whole * 2 // 51
    assert cuda_graph_bytes(model, served(max_num_seqs=64, max_num_batched_tokens=64)) == 307 * MIB + whole * 11 // 51
    assert cuda_graph_bytes(model, served(max_loras=1)) == 307 * MIB + 2 * whole
    assert cuda_graph_bytes(model, served(enforce_eager=True)) == 0


def test_uncertainty_by_hand() -> None:
    """Card of 20 GiB 0.1, weights of 8 0.04, activation of 2 0.5, graphs of 1 0.5, fixed 0.25: 1.39 GiB."""
    modern, turing = roomy_gpu(20), roomy_gpu(20, (7, 5))
    parts = (8 * GIB, 2 * GIB, GIB)
    assert uncertainty_bytes(modern, *parts, "auto") / GIB == pytest.approx(1.39, abs=1e-6)
    assert uncertainty_bytes(modern, *parts, "fp8") / GIB == pytest.approx(2.89, abs=1e-6)
    assert uncertainty_bytes(turing, *parts, "auto") / GIB == pytest.approx(1.89, abs=1e-6)


@pytest.mark.parametrize(
    ("version", "logit_bytes"),
    [
        ("0.11.0", 38),
        ("0.16.9", 38),
        ("0.17.0", 14),
        ("0.23.0", 14),
        ("v0.26.1rc1.dev608", 14),
        ("1.0", 14),
        ("0.15.1+cu129", 38),
    ],
)
def test_engine_of_a_version(version, logit_bytes) -> None:
    assert find_engine(version).logit_bytes == logit_bytes


@pytest.mark.parametrize("version", ["0.10.2", "0.8.5", "", "latest", "0", "0.x", "9" * 50])
def test_versions_that_are_not_modelled(version) -> None:
    with pytest.raises(UnknownEngine, match=r"0\.11 or later"):
        find_engine(version)
