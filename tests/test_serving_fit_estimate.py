"""The verdict: its definition, what moves it which way, and everything that is checked beside memory."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit import (
    AdapterRefused,
    AdapterShape,
    EngineFlags,
    FitReport,
    FlagsRefused,
    Gpu,
    custom_gpu,
    estimate,
    find_gpu,
    weights_from_config,
)
from serving.fit.flags import LORA_RANKS
from serving.fit.report import judge, worst
from tests.fix_fit import GIB, LLAMA_8B, SMOLLM2_CONFIG, TINY, roomy_gpu, shape_of

LLAMA = shape_of(LLAMA_8B)
LLAMA_WEIGHTS = replace(
    weights_from_config(LLAMA), source="headers", band=0.005, disk_bytes=16 * 10**9, largest_file_bytes=5 * 10**9
)
SMOL = shape_of(SMOLLM2_CONFIG)
SMOL_WEIGHTS = replace(weights_from_config(SMOL), source="headers", band=0.005)
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
    sequence = 8192 * 131_072  # 128 KiB a token
    assert found.usable_bytes == int(0.92 * int(79.19 * GIB))
    assert found.kv_cache_bytes == found.usable_bytes - parts
    assert found.headroom_bytes == found.kv_cache_bytes - sequence
    assert found.kv_cache_tokens == found.kv_cache_bytes // (131_072 * 16) * 16
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
    "--kv-cache-dtype=fp8": {"kv_cache_dtype": "fp8"},
    "--max-model-len=": {},
    "--max-num-seqs=64": {"max_num_seqs": 64},
    "--enforce-eager": {"enforce_eager": True},
    "--quantization=fp8": {"quantization": "fp8"},
    "--tensor-parallel-size=2": {"tensor_parallel_size": 2},
}


def test_every_change_gives_the_room_it_says_in_the_order_of_its_cost() -> None:
    """48 GB, so that some length fits with four slots of rank 64; the last change is the next larger card."""
    card, asked = replace(L4, memory_bytes=int(22.5 * GIB)), {"max_loras": 4, "max_lora_rank": 64}
    found = llama(card, adapters=(adapter(r=8),), **asked)
    *own, larger = found.changes
    assert found.max_model_len_fits > 0 and larger.flag == "--gpu nvidia-a100-40gb" and larger.effect_bytes > 0
    for change, (flag, fields) in zip(own, CHANGES.items(), strict=True):
        assert change.flag == flag + (str(found.max_model_len_fits) if not fields else "")
        tried = asked | (fields or {"max_model_len": found.max_model_len_fits})
        weights = weights_from_config(LLAMA, "fp8") if "quantization" in fields else LLAMA_WEIGHTS
        again = estimate(LLAMA, weights, (adapter(r=8),), card, EngineFlags(**tried))
        assert again.headroom_bytes - found.headroom_bytes == change.effect_bytes > 0


@given(LENGTHS, SEQUENCES, st.sampled_from([0, *LORA_RANKS]), st.floats(14, 100), st.sampled_from(["0.23.0", "0.6.4"]))
def test_the_longest_length_that_fits_is_the_longest(length, sequences, rank, memory, version) -> None:
    """By memory alone, and with the other flags as they are. V0 may need less above 32768 tokens, so there only this:
    the answer fits, and one token more does not, unless it stopped where V0 changes its batch.
    """
    flags = {"max_num_seqs": sequences, "max_loras": 2 if rank else 0, "max_lora_rank": rank or None}

    def memory_fits(tokens: int) -> bool:
        found = estimate(
            LLAMA, LLAMA_WEIGHTS, (), roomy_gpu(memory), EngineFlags(max_model_len=tokens, **flags), version
        )
        return found.headroom_bytes > found.uncertainty_bytes

    flags["max_num_batched_tokens"] = 2048 if version == "0.23.0" else None
    longest = estimate(
        LLAMA, LLAMA_WEIGHTS, (), roomy_gpu(memory), EngineFlags(max_model_len=length, **flags), version
    ).max_model_len_fits
    if longest:
        assert memory_fits(longest)
    if longest not in (32768, 131072):
        assert not memory_fits(longest + 1)


@given(LENGTHS, st.floats(16, 100))
def test_the_most_sequences_that_fit_are_the_most(length, memory) -> None:
    flags = {"max_model_len": length, "max_num_batched_tokens": 4096}
    most = llama(roomy_gpu(memory), **flags).max_num_seqs_fits
    for number, expected in ((most, True), (most + 1, False)):
        if 0 < number <= 4096:
            found = llama(roomy_gpu(memory), max_num_seqs=number, **flags)
            assert (found.headroom_bytes > found.uncertainty_bytes) == expected


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
    assert fp8.uncertainty_bytes > plain.uncertainty_bytes


def test_eager_saves_the_graphs() -> None:
    plain, eager = llama(L4), llama(L4, enforce_eager=True)
    assert eager.cuda_graph_bytes == 0
    assert eager.headroom_bytes - plain.headroom_bytes == plain.cuda_graph_bytes


def test_flags_to_serve_with() -> None:
    found = llama(roomy_gpu(79.19), adapters=(adapter(r=20),), max_model_len=8192, max_loras=2)
    assert found.flags == (
        "--dtype=bfloat16", "--max-model-len=8192", "--gpu-memory-utilization=0.92", "--max-num-seqs=1024",
        "--max-num-batched-tokens=8192", "--kv-cache-dtype=auto",
        "--enable-lora", "--max-loras=2", "--max-lora-rank=32",
    )  # fmt: skip
    assert not any("lora" in flag for flag in llama(L4).flags)
    assert "--enforce-eager" in llama(L4, enforce_eager=True).flags


def test_a_slot_for_each_adapter_unless_said_otherwise() -> None:
    assert llama(L4, adapters=(adapter(8), adapter(64))).flags[-2:] == ("--max-loras=2", "--max-lora-rank=64")


def test_length_beyond_the_positions() -> None:
    found = estimate(SMOL, SMOL_WEIGHTS, (), L4, EngineFlags(max_model_len=8193))
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
    found = estimate(SMOL, SMOL_WEIGHTS, (), L4, EngineFlags(gpu_memory_utilization=0.99))
    assert found.verdict == "tight"
    assert any("CUDA context" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("largest", "disk", "verdict"),
    [(3, 6, "fits"), (3, 12, "tight"), (12, 12, "tight"), (120, 120, "does_not_fit"), (3, 30, "tight")],
)
def test_host_ram_and_disk(largest, disk, verdict) -> None:
    """13 GiB hold 4 GiB of processes and the largest file, g2-standard-24's 88 GiB a file of 12 GB and not of 120;
    90 GB of disk less 52 for images hold 2 × 19.
    """
    weights = replace(SMOL_WEIGHTS, disk_bytes=disk * 10**9, largest_file_bytes=largest * 10**9)
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
        ({"max_lora_rank": 12}, "max_lora_rank"),
        ({"max_loras": -1}, "max_loras"),
        ({"dtype": "int8"}, "dtype"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"block_size": 12}, "block_size"),
    ],
)
def test_flags_that_are_refused(flags, words) -> None:
    with pytest.raises(FlagsRefused, match=words):
        EngineFlags(**flags)


def test_flags_that_the_card_or_the_adapter_refuses() -> None:
    with pytest.raises(FlagsRefused, match="compute capability"):
        llama(find_gpu("nvidia-tesla-t4"), kv_cache_dtype="fp8")
    with pytest.raises(FlagsRefused, match="at least max_num_seqs 4096"):
        llama(L4, max_num_seqs=4096, max_num_batched_tokens=2048)
    with pytest.raises(FlagsRefused, match=r"awq weights need compute capability 7\.5"):
        estimate(LLAMA, weights_from_config(LLAMA, "awq"), (), custom_gpu(31.7, (7, 0)), EngineFlags())
    with pytest.raises(FlagsRefused, match="a divisor of the 32 attention heads"):
        llama(L4, tensor_parallel_size=3)
    with pytest.raises(FlagsRefused, match="a divisor of the padded vocabulary of 64"):
        estimate(
            shape_of(TINY | {"num_attention_heads": 128, "num_key_value_heads": 128, "head_dim": 4}),
            SMOL_WEIGHTS,
            (),
            L4,
            EngineFlags(tensor_parallel_size=128),
        )
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
    back = json.loads(json.dumps(found.document()))
    assert set(back) == {"exit_code", *asdict(found)} and back["exit_code"] == 3
    assert back["changes"][0] == {"flag": found.changes[0].flag, "effect_bytes": found.changes[0].effect_bytes}
    assert back["verdict"] == "does_not_fit"


def test_a_tiny_card_holds_nothing() -> None:
    found = llama(roomy_gpu(1))
    assert (found.verdict, found.kv_cache_bytes, found.kv_cache_tokens) == ("does_not_fit", 0, 0)
    assert (found.max_model_len_fits, found.max_num_seqs_fits, found.concurrency_at_max_model_len) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("gpu", "version", "sequences", "tokens", "utilization"),
    [
        ("nvidia-l4", "0.23.0", 256, 2048, 0.92),
        ("nvidia-l4", "0.20.0", 256, 2048, 0.9),
        ("nvidia-h100-80gb", "0.23.0", 1024, 8192, 0.92),
        ("nvidia-a100-80gb", "0.23.0", 256, 2048, 0.92),
        ("nvidia-b200", "0.32.0", 1024, 16384, 0.92),
        ("nvidia-a100-80gb", "0.6.6", 256, 8192, 0.9),
    ],
)
def test_defaults_are_the_engines_own(gpu, version, sequences, tokens, utilization) -> None:
    """vllm/engine/arg_utils.py get_batch_defaults; V0 takes the whole prompt."""
    found = estimate(LLAMA, LLAMA_WEIGHTS, (), find_gpu(gpu), EngineFlags(max_model_len=8192), version)
    assert f"--max-num-seqs={sequences}" in found.flags
    assert f"--max-num-batched-tokens={tokens}" in found.flags
    assert f"--gpu-memory-utilization={utilization}" in found.flags


def test_an_unknown_newer_version_is_less_certain_and_says_so() -> None:
    known, newer = (estimate(LLAMA, LLAMA_WEIGHTS, (), L4, EngineFlags(), version) for version in ("0.32.0", "0.33.0"))
    assert newer.uncertainty_bytes > known.uncertainty_bytes
    assert newer.headroom_bytes == known.headroom_bytes
    assert any("newer than 0.32" in reason for reason in newer.reasons)


def test_two_gpus_halve_the_matrices_and_the_cache() -> None:
    one, two = (llama(roomy_gpu(40), max_model_len=8192, tensor_parallel_size=ways) for ways in (1, 2))
    assert two.weights_bytes == pytest.approx(one.weights_bytes / 2, rel=0.01)
    assert two.kv_cache_tokens > 2 * one.kv_cache_tokens
    assert "--tensor-parallel-size=2" in two.flags


def test_a_card_outside_the_catalogue_has_no_host_and_a_narrower_band() -> None:
    reported = llama(custom_gpu(22.03), max_model_len=4096)
    assert (reported.host_ram_bytes, reported.disk_bytes) == (0, 0)
    assert reported.uncertainty_bytes < llama(L4, max_model_len=4096).uncertainty_bytes


def test_slots_without_a_rank_have_to_hold_larger_adapters() -> None:
    """Eight slots of rank 16 take 0.68 GiB; of rank 64 2.7, which this card does not have."""
    flags = {"max_loras": 8, "max_model_len": 2048, "gpu_memory_utilization": 0.92, "max_num_seqs": 64}
    stated, open_rank = llama(roomy_gpu(20), max_lora_rank=16, **flags), llama(roomy_gpu(20), **flags)
    assert open_rank.headroom_bytes == stated.headroom_bytes
    assert (stated.verdict, open_rank.verdict) == ("fits", "tight")
    assert any("No LoRA rank was given" in reason for reason in open_rank.reasons)
