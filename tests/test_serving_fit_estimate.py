"""The verdict: its definition, what moves it which way, and everything that is checked beside memory."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit import AdapterRefused, AdapterShape, EngineFlags, FitReport, FlagsRefused, Gpu, estimate, find_gpu
from serving.fit.flags import LORA_RANKS
from serving.fit.report import judge, worst
from serving.fit.weights import Weights
from tests.fix_fit import GIB, LLAMA_8B, SMOLLM2_CONFIG, TINY, roomy_gpu, shape_of

LLAMA = shape_of(LLAMA_8B)
LLAMA_WEIGHTS = Weights(int(14.99 * GIB), 16 * 10**9, 5 * 10**9)
SMOL_WEIGHTS = Weights(270_078_592, 269_060_552, 269_060_552)
L4 = find_gpu("nvidia-l4")
LENGTHS, SEQUENCES = st.integers(1, 131072), st.integers(1, 2048)


def llama(gpu: Gpu, adapters: tuple[AdapterShape, ...] = (), **flags: object) -> FitReport:
    return estimate(LLAMA, LLAMA_WEIGHTS, adapters, gpu, EngineFlags(**flags))  # type: ignore[arg-type]


def adapter(r: int = 16, nbytes: int = 10**7) -> AdapterShape:
    return AdapterShape(r, ("q_proj",), nbytes, "org/base", ())


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**11))
def test_the_verdict_is_where_the_band_lies(headroom, band) -> None:
    expected = "fits" if headroom - band > 0 else "does_not_fit" if headroom + band < 0 else "tight"
    assert judge(headroom, band) == expected


def test_the_worst_verdict_counts() -> None:
    assert worst("fits", "tight") == "tight"
    assert worst("tight", "does_not_fit", "fits") == "does_not_fit"


def test_parts_add_up_to_what_is_usable() -> None:
    found = llama(roomy_gpu(79.19), max_model_len=8192, max_loras=2, max_lora_rank=16)
    parts = (
        found.weights_bytes + found.activation_bytes + found.cuda_graph_bytes + found.non_torch_bytes + found.lora_bytes
    )
    sequence = (8192 + 16) * 131_072  # a sequence and the null block at 128 KiB a token
    assert found.usable_bytes == int(0.92 * int(79.19 * GIB))
    assert found.kv_cache_bytes == found.usable_bytes - parts
    assert found.headroom_bytes == found.kv_cache_bytes - sequence
    assert found.kv_cache_tokens == (found.kv_cache_bytes // (131_072 * 16) - 1) * 16
    assert found.concurrency_at_max_model_len == pytest.approx(found.kv_cache_tokens / 8192, abs=0.01)
    assert (found.verdict, found.fits, found.changes) == ("fits", True, ())


def test_llama_8b_on_an_l4_with_all_its_positions_does_not_fit() -> None:
    """14.99 GiB of weights and 16 GiB of KV cache for 131,072 tokens on 20.3 GiB."""
    found = llama(L4)
    assert (found.verdict, found.fits, found.max_model_len) == ("does_not_fit", False, 131072)
    assert 0 < found.max_model_len_fits < 32768
    assert [change.flag for change in found.changes if "max-model-len" in change.flag] == [
        f"--max-model-len={found.max_model_len_fits}"
    ]


CHANGES = {
    "--max-lora-rank=8": {"max_lora_rank": 8},
    "--max-loras=1": {"max_loras": 1},
    "--gpu-memory-utilization=0.95": {"gpu_memory_utilization": 0.95},
    "--max-num-seqs=64": {"max_num_seqs": 64},
    "--kv-cache-dtype=fp8": {"kv_cache_dtype": "fp8"},
    "--max-model-len=": {},
    "--enforce-eager": {"enforce_eager": True},
}


def test_every_change_gives_the_room_it_says() -> None:
    asked = {"max_loras": 4, "max_lora_rank": 64}
    found = llama(L4, adapters=(adapter(r=8),), **asked)
    for change, (flag, fields) in zip(found.changes, CHANGES.items(), strict=True):
        assert change.flag == flag + (str(found.max_model_len_fits) if not fields else "")
        tried = asked | (fields or {"max_model_len": found.max_model_len_fits})
        again = llama(L4, adapters=(adapter(r=8),), **tried)
        assert again.headroom_bytes - found.headroom_bytes == change.effect_bytes > 0


@given(LENGTHS, SEQUENCES, st.sampled_from([0, *LORA_RANKS]), st.floats(14, 100))
def test_the_longest_length_that_fits_is_the_longest(length, sequences, rank, memory) -> None:
    flags = {"max_num_seqs": sequences, "max_loras": 2 if rank else 0, "max_lora_rank": rank or None}
    longest = llama(roomy_gpu(memory), max_model_len=length, **flags).max_model_len_fits
    if longest:
        assert llama(roomy_gpu(memory), max_model_len=longest, **flags).verdict == "fits"
    if longest < 131072:
        assert llama(roomy_gpu(memory), max_model_len=longest + 1, **flags).verdict != "fits"


@pytest.mark.parametrize("field", ["max_model_len", "max_num_seqs", "max_num_batched_tokens", "max_loras"])
@given(low=st.integers(1, 1000), more=st.integers(0, 1000))
def test_asking_for_more_never_leaves_more(field, low, more) -> None:
    base = {"max_num_seqs": 1, "max_num_batched_tokens": 4096}
    lower, higher = (llama(roomy_gpu(24), **(base | {field: value})) for value in (low, low + more))
    assert higher.headroom_bytes <= lower.headroom_bytes
    assert higher.kv_cache_tokens <= lower.kv_cache_tokens
    assert worst(higher.verdict, lower.verdict) == higher.verdict


@given(st.floats(10, 100), st.floats(0, 20), st.sampled_from([0.5, 0.85, 0.92]), LENGTHS)
def test_more_memory_never_turns_against_a_model(memory, more, utilization, length) -> None:
    flags = {"gpu_memory_utilization": utilization, "max_model_len": length}
    smaller, larger = llama(roomy_gpu(memory), **flags), llama(roomy_gpu(memory + more), **flags)
    assert larger.headroom_bytes >= smaller.headroom_bytes
    assert worst(smaller.verdict, larger.verdict) == smaller.verdict


@given(st.sampled_from(LORA_RANKS), st.sampled_from(LORA_RANKS))
def test_a_larger_rank_takes_more(one, other) -> None:
    lower, higher = (llama(roomy_gpu(24), max_loras=2, max_lora_rank=rank) for rank in sorted((one, other)))
    assert higher.lora_bytes / max(one, other) == lower.lora_bytes / min(one, other)
    assert higher.headroom_bytes <= lower.headroom_bytes


def test_fp8_kv_cache_halves_the_token_and_widens_the_band() -> None:
    plain, fp8 = llama(L4, max_model_len=4096), llama(L4, max_model_len=4096, kv_cache_dtype="fp8")
    assert fp8.kv_cache_tokens >= 2 * plain.kv_cache_tokens
    assert fp8.uncertainty_bytes - plain.uncertainty_bytes == 3 * GIB // 2


def test_eager_saves_the_graphs() -> None:
    plain, eager = llama(L4), llama(L4, enforce_eager=True)
    assert eager.cuda_graph_bytes == 0
    assert eager.headroom_bytes - plain.headroom_bytes == plain.cuda_graph_bytes


def test_flags_to_serve_with() -> None:
    found = llama(roomy_gpu(79.19), adapters=(adapter(r=20),), max_model_len=8192, max_loras=2)
    assert found.flags == (
        "--dtype=bfloat16", "--max-model-len=8192", "--gpu-memory-utilization=0.92", "--max-num-seqs=256",
        "--max-num-batched-tokens=2048", "--kv-cache-dtype=auto",
        "--enable-lora", "--max-loras=2", "--max-lora-rank=32",
    )  # fmt: skip
    assert not any("lora" in flag for flag in llama(L4).flags)
    assert "--enforce-eager" in llama(L4, enforce_eager=True).flags


def test_a_slot_for_each_adapter_unless_said_otherwise() -> None:
    assert llama(L4, adapters=(adapter(8), adapter(64))).flags[-2:] == ("--max-loras=2", "--max-lora-rank=64")


def test_length_beyond_the_positions() -> None:
    found = estimate(shape_of(SMOLLM2_CONFIG), SMOL_WEIGHTS, (), L4, EngineFlags(max_model_len=8193))
    assert found.verdict == "does_not_fit"
    assert "max_model_len is 8193; the model's max_position_embeddings is 8192." in found.reasons


@pytest.mark.parametrize(("declared", "flag"), [("bfloat16", "half"), ("float32", "half"), ("float16", "half")])
def test_a_card_without_bfloat16_serves_half(declared, flag) -> None:
    found = estimate(
        shape_of(SMOLLM2_CONFIG | {"dtype": declared}), SMOL_WEIGHTS, (), find_gpu("nvidia-tesla-t4"), EngineFlags()
    )
    assert found.flags[0] == f"--dtype={flag}"
    assert any("half precision" in reason for reason in found.reasons) == (declared == "bfloat16")


@pytest.mark.parametrize(("declared", "flag"), [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("float16", "half")])
def test_a_card_with_bfloat16_serves_what_the_checkpoint_has(declared, flag) -> None:
    found = estimate(shape_of(SMOLLM2_CONFIG | {"dtype": declared}), SMOL_WEIGHTS, (), L4, EngineFlags())
    assert found.flags[0] == f"--dtype={flag}"


def test_no_memory_left_for_the_context() -> None:
    found = estimate(shape_of(SMOLLM2_CONFIG), SMOL_WEIGHTS, (), L4, EngineFlags(gpu_memory_utilization=0.99))
    assert found.verdict == "tight"
    assert any("CUDA context" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("largest", "disk", "verdict"),
    [(3, 6, "fits"), (3, 12, "tight"), (12, 12, "does_not_fit"), (3, 30, "does_not_fit")],
)
def test_host_ram_and_disk(largest, disk, verdict) -> None:
    """13 GiB hold 4 GiB of processes and the largest file; 90 GB of disk less 52 for images hold 2 × 19."""
    weights = Weights(270_078_592, disk * 10**9, largest * 10**9)
    found = estimate(shape_of(SMOLLM2_CONFIG), weights, (adapter(nbytes=10**6),), L4, EngineFlags())
    assert found.verdict == verdict
    assert found.host_ram_needed_bytes == 4 * GIB + largest * 10**9 + 10**6
    assert found.disk_needed_bytes == 52 * 10**9 + 2 * (disk * 10**9 + 10**6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": 1.01}, "gpu_memory_utilization"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"max_num_seqs": True}, "max_num_seqs"),
        ({"max_num_seqs": 4096}, "at least max_num_seqs 4096"),
        ({"max_lora_rank": 12}, "max_lora_rank"),
        ({"max_loras": -1}, "max_loras"),
        ({"dtype": "float32"}, "dtype"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
    ],
)
def test_flags_that_are_refused(flags, words) -> None:
    with pytest.raises(FlagsRefused, match=words):
        EngineFlags(**flags)


def test_flags_that_the_card_or_the_adapter_refuses() -> None:
    with pytest.raises(FlagsRefused, match="compute capability"):
        llama(find_gpu("nvidia-a10g"), kv_cache_dtype="fp8")
    with pytest.raises(FlagsRefused, match="--dtype=half"):
        llama(find_gpu("nvidia-tesla-t4"), dtype="bfloat16")
    with pytest.raises(FlagsRefused, match="max_loras is 0"):
        llama(L4, adapters=(adapter(),), max_loras=0)
    with pytest.raises(FlagsRefused, match="at most 512"):
        llama(L4, adapters=(adapter(r=600),))
    with pytest.raises(AdapterRefused, match=r"rank 32; max_lora_rank is 16\. Use --max-lora-rank=32"):
        llama(L4, adapters=(adapter(r=32),), max_lora_rank=16)


def test_a_report_is_plain_json() -> None:
    found = llama(L4)
    back = json.loads(json.dumps(asdict(found)))
    assert back["changes"][0] == {"flag": found.changes[0].flag, "effect_bytes": found.changes[0].effect_bytes}
    assert back["verdict"] == "does_not_fit"


def test_a_tiny_card_holds_nothing() -> None:
    found = estimate(shape_of(TINY), replace(SMOL_WEIGHTS, served_bytes=GIB), (), roomy_gpu(1), EngineFlags())
    assert (found.verdict, found.kv_cache_bytes, found.kv_cache_tokens) == ("does_not_fit", 0, 0)
    assert (found.max_model_len_fits, found.concurrency_at_max_model_len) == (0, 0.0)
