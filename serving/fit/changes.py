"""Flags that would give a model more room, cheapest for the service first, each with its effect. Pure.

It says what each one adds alone; it does not promise that one is enough.
"""

from collections.abc import Iterator
from dataclasses import replace

from serving.fit.case import Case
from serving.fit.catalogue import MARLIN_CAPABILITY, MIB, Gpu, load_gpus
from serving.fit.flags import FlagsRefused, ServedFlags, padded_rank
from serving.fit.report import Change
from serving.fit.resolve import FP8_KV_CAPABILITY, check_parallel
from serving.fit.weights import weights_from_config

FEW_SEQUENCES = 64
FEW_TOKENS = 2048
MOST_UTILIZATION = 0.95
# What must stay free of vLLM's share: the CUDA context exists before vLLM looks at free memory, and vLLM refuses to
# start when less is free than it asks for. 0.3 to 0.5 GiB for one process; an allowance, since no log in hand isolates
# it.
CONTEXT_BYTES = 512 * MIB


def propose(case: Case, flags: ServedFlags, longest: int) -> tuple[Change, ...]:
    """`longest` is the max_model_len that would fit, 0 when none."""
    now = case.headroom(flags)
    tried = [(flag, case.headroom(changed) - now) for flag, changed in _flags(case, flags, longest)]
    tried += [(flag, other.headroom(changed) - now) for flag, other, changed in _larger(case, flags)]
    return tuple(Change(flag, effect) for flag, effect in tried if effect > 0)


def _flags(case: Case, flags: ServedFlags, longest: int) -> Iterator[tuple[str, ServedFlags]]:
    if case.adapters and flags.max_loras:
        rank = padded_rank(max(adapter.r for adapter in case.adapters))
        yield f"--max-lora-rank={rank}", replace(flags, max_lora_rank=rank)
        slots = min(len(case.adapters), flags.max_loras)
        yield f"--max-loras={slots}", replace(flags, max_loras=slots)
    if (
        flags.gpu_memory_utilization < MOST_UTILIZATION
        and case.gpu.memory_bytes * (1 - MOST_UTILIZATION) >= CONTEXT_BYTES
    ):
        yield f"--gpu-memory-utilization={MOST_UTILIZATION}", replace(flags, gpu_memory_utilization=MOST_UTILIZATION)
    if not flags.kv_cache_dtype.startswith("fp8") and case.gpu.compute_capability >= FP8_KV_CAPABILITY:
        yield "--kv-cache-dtype=fp8", replace(flags, kv_cache_dtype="fp8")
    if 0 < longest < flags.max_model_len:
        yield f"--max-model-len={longest}", replace(flags, max_model_len=longest)
    if flags.max_num_seqs > FEW_SEQUENCES:
        yield f"--max-num-seqs={FEW_SEQUENCES}", replace(flags, max_num_seqs=FEW_SEQUENCES)
    if flags.max_num_batched_tokens > max(FEW_TOKENS, flags.max_num_seqs):
        fewer = max(FEW_TOKENS, flags.max_num_seqs)
        yield f"--max-num-batched-tokens={fewer}", replace(flags, max_num_batched_tokens=fewer)
    if case.model.multimodal and not flags.language_model_only:
        yield "--language-model-only", replace(flags, language_model_only=True)
    if not flags.enforce_eager:
        yield "--enforce-eager", replace(flags, enforce_eager=True)


def _larger(case: Case, flags: ServedFlags) -> Iterator[tuple[str, Case, ServedFlags]]:
    """Quantised weights, two GPUs, the next card."""
    if case.weights.quantisation is None:
        method = "fp8" if case.gpu.compute_capability >= MARLIN_CAPABILITY else "bitsandbytes"
        weights = weights_from_config(case.model, method)
        yield f"--quantization={method}", replace(case, weights=weights), replace(flags, quantization=method)
    wider = replace(flags, tensor_parallel_size=2 * flags.tensor_parallel_size)
    try:
        check_parallel(case.model, wider.tensor_parallel_size, wider.pipeline_parallel_size)
    except FlagsRefused:
        pass
    else:
        yield f"--tensor-parallel-size={wider.tensor_parallel_size}", case, wider
    card = _next_card(case.gpu)
    if card is not None:
        yield f"--gpu {card.name}", replace(case, gpu=card), flags


def _next_card(gpu: Gpu) -> Gpu | None:
    """The smallest card of a data centre with more memory, at least as capable."""
    larger = [
        card
        for card in load_gpus().values()
        if card.machines
        and card.memory_bytes > 1.05 * gpu.memory_bytes
        and card.compute_capability >= min(gpu.compute_capability, (8, 0))
    ]
    return min(larger, key=lambda card: card.memory_bytes, default=None)
