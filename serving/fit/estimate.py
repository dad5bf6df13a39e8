"""From shapes and flags to a FitReport. Pure.

Resolve what the flags leave open, compute the parts, subtract them from what is usable, judge.
"""

from dataclasses import dataclass

from serving.fit.adapter import AdapterShape
from serving.fit.catalogue import GIB, MIB, Gpu
from serving.fit.changes import CONTEXT_BYTES, propose
from serving.fit.config import ModelShape
from serving.fit.engines import PINNED_ENGINE, Engine, find_engine
from serving.fit.flags import EngineFlags, ServedFlags, argv
from serving.fit.host import disk_needed, judge_host, ram_needed
from serving.fit.parts import BLOCK_TOKENS, Parts, compute_parts, kv_tokens
from serving.fit.report import FitReport, Verdict, judge, worst
from serving.fit.resolve import resolve
from serving.fit.weights import Weights


@dataclass(frozen=True)
class _Case:
    """What is served where; only the flags are open to change."""

    model: ModelShape
    weights: Weights
    adapters: tuple[AdapterShape, ...]
    gpu: Gpu
    engine: Engine

    def usable(self, flags: ServedFlags) -> int:
        return int(self.gpu.memory_bytes * flags.gpu_memory_utilization)

    def parts(self, flags: ServedFlags) -> Parts:
        return compute_parts(self.model, self.weights.served_bytes, self.gpu, flags, self.engine)

    def headroom(self, flags: ServedFlags) -> int:
        parts = self.parts(flags)
        return self.usable(flags) - parts.non_kv_bytes - parts.sequence_bytes


def estimate(
    model: ModelShape,
    weights: Weights,
    adapters: tuple[AdapterShape, ...],
    gpu: Gpu,
    flags: EngineFlags,
    engine_version: str = PINNED_ENGINE,
) -> FitReport:
    """Adapters must have passed adapter.check_base. A max_model_len beyond the model's is a verdict, not an error.

    Raises FlagsRefused, AdapterRefused (rank above max_lora_rank), UnknownEngine.
    """
    case = _Case(model, weights, adapters, gpu, find_engine(engine_version))
    served = resolve(model, adapters, gpu, flags)
    parts = case.parts(served)
    available = max(case.usable(served) - parts.non_kv_bytes, 0)
    longest = _longest(case, parts, available)
    verdict, reasons = _judge(case, served, parts)
    changes = () if verdict == "fits" else propose(served, adapters, gpu, longest, case.headroom)
    return FitReport(
        gpu=gpu.name,
        engine_version=engine_version,
        verdict=verdict,
        total_bytes=gpu.memory_bytes,
        usable_bytes=case.usable(served),
        weights_bytes=parts.weights_bytes,
        kv_cache_bytes=available,
        kv_cache_tokens=kv_tokens(available, parts.block_bytes),
        activation_bytes=parts.activation_bytes,
        cuda_graph_bytes=parts.cuda_graph_bytes,
        non_torch_bytes=parts.non_torch_bytes,
        lora_bytes=parts.lora_bytes,
        headroom_bytes=case.headroom(served),
        uncertainty_bytes=parts.uncertainty_bytes,
        max_model_len=served.max_model_len,
        max_model_len_fits=longest,
        concurrency_at_max_model_len=_concurrency(available, parts),
        host_ram_needed_bytes=ram_needed(weights, adapters),
        host_ram_bytes=gpu.machine.allocatable_ram_bytes,
        disk_needed_bytes=disk_needed(weights, adapters),
        disk_bytes=gpu.machine.disk_bytes,
        flags=argv(served),
        changes=changes,
        reasons=reasons,
    )


def _longest(case: _Case, parts: Parts, available: int) -> int:
    """The longest max_model_len whose headroom still exceeds the uncertainty band."""
    certain = max(available - parts.uncertainty_bytes - 1, 0)
    return min(kv_tokens(certain, parts.block_bytes), case.model.max_position_embeddings)


def _concurrency(available: int, parts: Parts) -> float:
    """Blocks there are by blocks that one sequence takes (vLLM: get_max_concurrency_for_kv_cache_config)."""
    sequence_tokens = (parts.sequence_bytes // parts.block_bytes - 1) * BLOCK_TOKENS
    return round(kv_tokens(available, parts.block_bytes) / sequence_tokens, 2)


def _judge(case: _Case, flags: ServedFlags, parts: Parts) -> tuple[Verdict, tuple[str, ...]]:
    """The worst of memory, length, start and host, with one sentence for each thing that a person should know."""
    verdicts: list[Verdict] = [judge(case.headroom(flags), parts.uncertainty_bytes)]
    reasons = [_memory_sentence(case, flags, parts)]
    positions = case.model.max_position_embeddings
    if flags.max_model_len > positions:
        verdicts.append("does_not_fit")
        reasons.append(f"max_model_len is {flags.max_model_len}; the model's max_position_embeddings is {positions}.")
    if case.gpu.memory_bytes - case.usable(flags) < CONTEXT_BYTES:
        verdicts.append("tight")
        reasons.append(
            f"gpu_memory_utilization {flags.gpu_memory_utilization} leaves under {CONTEXT_BYTES // MIB} MiB for the "
            "CUDA "
            "context; vLLM does not start when less memory is free than it asks for."
        )
    if case.model.dtype == "bfloat16" and flags.dtype == "half":
        reasons.append("The bfloat16 checkpoint is served in half precision; values beyond 65504 overflow.")
    host, sentences = judge_host(case.weights, case.adapters, case.gpu.machine)
    return worst(*verdicts, host), (*reasons, *sentences)


def _memory_sentence(case: _Case, flags: ServedFlags, parts: Parts) -> str:
    return (
        f"One sequence of {flags.max_model_len} tokens needs {(parts.non_kv_bytes + parts.sequence_bytes) / GIB:.2f} "
        "GiB "
        f"on {case.gpu.name} ({case.usable(flags) / GIB:.2f} GiB usable at gpu_memory_utilization "
        f"{flags.gpu_memory_utilization}): headroom {case.headroom(flags) // MIB} MiB, "
        f"uncertain by {parts.uncertainty_bytes // MIB} MiB."
    )
