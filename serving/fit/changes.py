"""Flags that would give a model more room, cheapest for the service first, each with its effect. Pure.

It says what each one adds alone; it does not promise that one is enough.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from serving.fit.adapter import AdapterShape
from serving.fit.catalogue import MIB, Gpu
from serving.fit.flags import ServedFlags, padded_rank
from serving.fit.report import Change
from serving.fit.resolve import FP8_KV_CAPABILITY

FEW_SEQUENCES = 64
MOST_UTILIZATION = 0.95
# What must stay free of vLLM's share: the CUDA context exists before vLLM looks at free memory, and vLLM refuses to
# start when less is free than it asks for. 0.3 to 0.5 GiB for one process; an allowance, since no log in hand isolates
# it.
CONTEXT_BYTES = 512 * MIB


def propose(
    flags: ServedFlags,
    adapters: tuple[AdapterShape, ...],
    gpu: Gpu,
    longest: int,
    headroom: Callable[[ServedFlags], int],
) -> tuple[Change, ...]:
    """`longest` is the max_model_len that would fit, 0 when none."""
    now = headroom(flags)
    tried = ((flag, headroom(changed) - now) for flag, changed in _candidates(flags, adapters, gpu, longest))
    return tuple(Change(flag, effect) for flag, effect in tried if effect > 0)


def _candidates(
    flags: ServedFlags, adapters: tuple[AdapterShape, ...], gpu: Gpu, longest: int
) -> Iterator[tuple[str, ServedFlags]]:
    if adapters and flags.max_loras:
        rank = padded_rank(max(adapter.r for adapter in adapters))
        yield f"--max-lora-rank={rank}", replace(flags, max_lora_rank=rank)
        slots = min(len(adapters), flags.max_loras)
        yield f"--max-loras={slots}", replace(flags, max_loras=slots)
    if gpu.memory_bytes * (1 - MOST_UTILIZATION) >= CONTEXT_BYTES:
        yield f"--gpu-memory-utilization={MOST_UTILIZATION}", replace(flags, gpu_memory_utilization=MOST_UTILIZATION)
    if flags.max_num_seqs > FEW_SEQUENCES:
        yield f"--max-num-seqs={FEW_SEQUENCES}", replace(flags, max_num_seqs=FEW_SEQUENCES)
    if flags.kv_cache_dtype == "auto" and gpu.compute_capability >= FP8_KV_CAPABILITY:
        yield "--kv-cache-dtype=fp8", replace(flags, kv_cache_dtype="fp8")
    if 0 < longest < flags.max_model_len:
        yield f"--max-model-len={longest}", replace(flags, max_model_len=longest)
    if not flags.enforce_eager:
        yield "--enforce-eager", replace(flags, enforce_eager=True)
