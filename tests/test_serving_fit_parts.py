"""Each part against numbers worked out by hand, or logged by vLLM."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit import weights_from_config
from serving.fit.activation import activation_bytes
from serving.fit.engines import NEWEST, UnknownEngine, find_engine, is_newer
from serving.fit.flags import ServedFlags
from serving.fit.parts import cuda_graph_bytes, lora_bytes, non_torch_bytes
from tests.fix_fit import GIB, LLAMA_8B, QWEN25_05B, TINY, roomy_gpu, shape_of
from tests.fix_fit_points import load_points

MIB = 1024**2
ENGINE, V0 = find_engine("0.23.0"), find_engine("0.6.6")
SERVED = ServedFlags(0.92, 256, 256, 2048, "bfloat16", "auto", 0, 16, False)


def served(**changes: object) -> ServedFlags:
    return ServedFlags(**(vars(SERVED) | changes))  # type: ignore[arg-type]


def test_lora_slots_of_llama_3_1_8b() -> None:
    """A layer: q 4096+4096, k and v 4096+1024 each, o 4096+4096, gate and up 4096+14336 each, down 14336+4096.

    Together 81,920; × 32 layers, + embeddings and head 2 × (128256 + 4096); × 2 slots × rank 16 × 2 bytes. vLLM logged
    14.99 GiB without and 15.17 GiB with two slots of rank 16.
    """
    found = lora_bytes(shape_of(LLAMA_8B), served(max_loras=2))
    assert found == (81_920 * 32 + 2 * 132_352) * 2 * 16 * 2
    assert found / GIB == pytest.approx(15.17 - 14.99, abs=0.01)


def test_lora_slots_without_embeddings() -> None:
    """Qwen2.5-0.5B: q 1792, k and v 1024 each, o 1792, gate, up and down 5760 each = 22,912 a layer."""
    model = shape_of(QWEN25_05B)
    assert lora_bytes(model, served(max_loras=1, max_lora_rank=8)) == 22_912 * 24 * 8 * 2
    assert lora_bytes(model, served(max_loras=0, max_lora_rank=64)) == 0


def test_lora_slots_over_two_gpus() -> None:
    """B of q, k, v, gate and up is halved, and A of o and down: TINY's layer has 16+8, 2 × (16+4), 8+16, 2 × (16+12), 12+16."""
    qwen = shape_of(TINY | {"architectures": ["Qwen2ForCausalLM"]})
    assert (
        lora_bytes(qwen, served(max_loras=1, max_lora_rank=8, tensor_parallel_size=2))
        == 2 * (24 + 40 + 24 + 56 + 28) * 8 * 2
    )


def test_activation_by_hand() -> None:
    """TINY with T = 512, S = 4: hidden 4 × 512 × 16 × 2; the layer 3 × 24 × 512 × 2 is above the sampler 4 × 64 × 14."""
    few = served(max_num_seqs=4, max_num_batched_tokens=512)
    assert activation_bytes(shape_of(TINY), few, ENGINE) == 65_536 + 73_728
    with_lora = served(max_num_seqs=4, max_num_batched_tokens=512, max_loras=1, max_lora_rank=8)
    assert activation_bytes(shape_of(TINY), with_lora, ENGINE) == 65_536 + 73_728 + 3 * 512 * 8 * 4


@pytest.mark.parametrize(
    ("name", "logged"),
    [("V100-32GB", 4.35), ("T4 (14.56 GiB, Turing", 2.02), ("RTX 2060", 0.74), ("24GB-class", 1.4)],
)
def test_logged_activation_of_v0(name, logged) -> None:
    """A whole prompt in one step: Qwen2.5-7B and -1.5B with 32768 tokens, Qwen3-4B with 10000; the sampler's 256."""
    point = next(p for p in load_points() if p.row["gpu"].startswith(name) and p.row.get("activation_gib") == logged)
    assert point.report.activation_bytes / GIB == pytest.approx(logged, rel=0.02)


def test_v0_needs_less_for_a_longer_model_when_it_starts_to_chunk() -> None:
    """Llama-3.1-8B on an RTX 3090 fails with 29,000 tokens and starts with 35,000 (vllm-project/vllm issue 10517)."""
    from serving.fit import EngineFlags, custom_gpu, estimate

    model, card = shape_of(LLAMA_8B), custom_gpu(23.6, (8, 6))
    weights = weights_from_config(model)
    below, above = (
        estimate(model, weights, (), card, EngineFlags(max_model_len=length), "0.6.4") for length in (29_000, 35_000)
    )
    assert above.activation_bytes < below.activation_bytes
    assert above.headroom_bytes > below.headroom_bytes


@pytest.mark.parametrize(
    ("layers", "logged"),
    [(28, 0.88), (32, 0.76), (40, 0.98), (40, 1.07), (46, 1.23), (80, 1.61), (80, 1.85)],
    ids=lambda value: str(value),
)
def test_logged_cuda_graphs(layers, logged) -> None:
    """vLLM 0.19 on an H100: Qwen2.5-7B, phi-2, granite-8B, phi-4, Gemma-2-27B, Qwen2.5-72B, Llama-3.3-70B."""
    flags = served(max_num_seqs=1024, max_num_batched_tokens=8192)
    found = cuda_graph_bytes(shape_of(TINY | {"num_hidden_layers": layers}), flags, ENGINE)
    assert found / GIB == pytest.approx(logged, rel=0.3)


def test_cuda_graphs_follow_the_capture_sizes() -> None:
    """256 sequences: 51 sizes up to 512. One sequence: 1 and 2. 64 tokens a batch: 1, 2, 4 and 8 to 64 by 8 make 11."""
    model = shape_of(TINY | {"num_hidden_layers": 30})
    whole = (102 + 17 * 30) * MIB
    assert cuda_graph_bytes(model, SERVED, ENGINE) == 307 * MIB + whole
    assert cuda_graph_bytes(model, served(max_num_seqs=1), ENGINE) == 307 * MIB * 2 // 51 + whole * 2 // 51
    few = served(max_num_seqs=64, max_num_batched_tokens=64)
    assert cuda_graph_bytes(model, few, ENGINE) == 307 * MIB * 11 // 51 + whole * 11 // 51
    assert cuda_graph_bytes(model, served(max_loras=1), ENGINE) == 307 * MIB + 2 * whole
    assert cuda_graph_bytes(model, served(enforce_eager=True), ENGINE) == 0
    assert cuda_graph_bytes(model, SERVED, V0) == (60 + 5 * 30) * MIB


def test_tensor_parallel_needs_buffers() -> None:
    plain, nvlink = roomy_gpu(80), roomy_gpu(80)
    nvlink = type(plain)(**(vars(plain) | {"nvlink": True}))
    alone, pair = SERVED, served(tensor_parallel_size=2)
    assert non_torch_bytes(nvlink, alone, ENGINE) == non_torch_bytes(plain, alone, ENGINE) == 256 * MIB
    assert non_torch_bytes(nvlink, pair, ENGINE) / GIB == pytest.approx(2.09, abs=0.05)  # 2.07 to 2.17 logged
    assert non_torch_bytes(plain, pair, ENGINE) / GIB == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("version", "logit_bytes", "in_budget", "utilization"),
    [
        ("0.6.6", 38, False, 0.90),
        ("0.11.0", 38, False, 0.90),
        ("0.16.9", 38, False, 0.90),
        ("0.17.0", 14, False, 0.90),
        ("0.20.2", 14, False, 0.90),
        ("0.21.0", 14, True, 0.92),
        ("v0.26.1rc1.dev608", 14, True, 0.92),
        ("0.15.1+cu129", 38, False, 0.90),
        ("1.0", 14, True, 0.92),
    ],
)
def test_engine_of_a_version(version, logit_bytes, in_budget, utilization) -> None:
    engine = find_engine(version)
    assert (engine.logit_bytes, engine.graphs_in_budget, engine.utilization) == (logit_bytes, in_budget, utilization)


def test_old_cards_and_the_word_v0_choose_the_old_engine() -> None:
    assert find_engine("0.8.5").v1 and find_engine("0.10.2").v1
    assert not find_engine("0.8.5 V0").v1
    assert not find_engine("0.10.2", (7, 5)).v1
    assert find_engine("0.11.0", (7, 5)).v1


@given(st.integers(0, 60), st.integers(0, 40))
def test_versions_are_newer_after_the_newest_that_was_read(minor, patch) -> None:
    assert is_newer(f"0.{minor}.{patch}") == ((0, minor) > NEWEST)


@pytest.mark.parametrize("version", ["", "latest", "0", "0.x", "9" * 50, "abc 0.23.0"])
def test_texts_that_are_no_version(version) -> None:
    with pytest.raises(UnknownEngine, match="is no vLLM version"):
        find_engine(version)
