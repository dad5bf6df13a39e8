"""From shapes and flags to a FitReport. Pure.

Resolve what the flags leave open, compute the parts, subtract them from what is usable, judge.
"""

from serving.fit.adapter import AdapterShape
from serving.fit.case import Case
from serving.fit.catalogue import GIB, MIB, Gpu
from serving.fit.changes import CONTEXT_BYTES, propose
from serving.fit.engines import NEWEST, PINNED_ENGINE, find_engine, is_newer
from serving.fit.flags import EngineFlags, ServedFlags, argv
from serving.fit.host import disk_needed, judge_host, ram_needed
from serving.fit.inverse import longest_length, most_sequences
from serving.fit.parts import Parts, kv_tokens
from serving.fit.report import FitReport, Verdict, judge, worst
from serving.fit.resolve import resolve
from serving.fit.shapes import ModelShape
from serving.fit.weights import Weights

# Of the sampler's logits, what the warm-up after graph capture needs anew, because graphs keep what the profile run
# reused: gpt-oss-20b with 1024 sequences at 0.95 runs out of memory there with 1.6 GiB free beside its graphs, Kimi-VL
# with 2.0 and Gemma-2-27B with 2.2 do not.
WARM_UP_SHARE, WARM_UP_BYTES = 0.75, 14


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
    engine = find_engine(engine_version, gpu.compute_capability)
    case = Case(model, weights, adapters, gpu, engine, is_newer(engine_version))
    served = resolve(model, adapters, gpu, flags, engine, weights.quantisation)
    parts = case.parts(served)
    available = max(case.available(served), 0)
    blocks = available // case.block_bytes(served)
    longest = longest_length(case, served, flags.max_num_batched_tokens is not None)
    verdict, reasons = _judge(case, served, parts, engine_version)
    machine = gpu.machine_for(_cards(served))
    return FitReport(
        gpu=gpu.name,
        engine_version=engine_version,
        verdict=verdict,
        total_bytes=gpu.memory_bytes,
        usable_bytes=case.usable(served),
        weights_bytes=parts.weights_bytes,
        kv_cache_bytes=available,
        kv_cache_tokens=kv_tokens(
            case.layout(served), blocks, served.max_model_len, case.in_flight(served), engine.states
        ),
        activation_bytes=parts.activation_bytes,
        cuda_graph_bytes=parts.cuda_graph_bytes,
        non_torch_bytes=parts.non_torch_bytes,
        lora_bytes=parts.lora_bytes,
        headroom_bytes=case.headroom(served),
        uncertainty_bytes=case.band(served),
        max_model_len=served.max_model_len,
        max_model_len_fits=longest,
        max_num_seqs_fits=most_sequences(case, served),
        concurrency_at_max_model_len=round(blocks / max(case.sequence_blocks(served), 1), 2),
        host_ram_needed_bytes=ram_needed(weights, adapters, _cards(served)),
        host_ram_bytes=machine.allocatable_ram_bytes if machine else 0,
        disk_needed_bytes=disk_needed(weights, adapters),
        disk_bytes=machine.disk_bytes if machine else 0,
        flags=argv(served),
        changes=() if verdict == "fits" else propose(case, served, longest),
        reasons=reasons,
    )


def _cards(flags: ServedFlags) -> int:
    return flags.tensor_parallel_size * flags.pipeline_parallel_size * flags.data_parallel_size


def _judge(case: Case, flags: ServedFlags, parts: Parts, version: str) -> tuple[Verdict, tuple[str, ...]]:
    """The worst of memory, length, start and host, with one sentence for each thing that a person should know."""
    headroom, band = case.headroom(flags), case.band(flags)
    verdicts: list[Verdict] = [judge(headroom, band)]
    reasons = [_memory_sentence(case, flags, parts, headroom, band)]
    if headroom > band and not case.certain(flags):
        verdicts.append("tight")
    positions = case.model.max_position_embeddings
    if flags.max_model_len > positions:
        verdicts.append("does_not_fit")
        reasons.append(f"max_model_len is {flags.max_model_len}; the model's max_position_embeddings is {positions}.")
    if short := _outside(case, flags, parts):
        verdicts.append("tight")
        reasons.append(short)
    machines = case.gpu.machines_for(_cards(flags))
    sentences: tuple[str, ...] = ()
    if machines:
        host, sentences = judge_host(case.weights, case.adapters, machines, _cards(flags))
        verdicts.append(host)
    return worst(*verdicts), (*reasons, *sentences, *_notes(case, flags, version))


def _outside(case: Case, flags: ServedFlags, parts: Parts) -> str:
    """What has to fit beside vLLM's share: the CUDA context, the sampler's warm-up, and graphs of engines before 0.21."""
    left = case.gpu.memory_bytes - case.usable(flags)
    graphs = 0 if parts.graphs_in_budget else parts.cuda_graph_bytes
    logits = flags.max_num_seqs * case.model.vocab_size * WARM_UP_BYTES if case.engine.v1 else 0
    warm_up = 0 if flags.enforce_eager else int(WARM_UP_SHARE * logits)
    if left < CONTEXT_BYTES:
        return (
            f"gpu_memory_utilization {flags.gpu_memory_utilization} leaves {left // MIB} MiB for the CUDA context, "
            f"which takes about {CONTEXT_BYTES // MIB}; vLLM does not start when less memory is free than it asks for."
        )
    if left < CONTEXT_BYTES + graphs + warm_up:
        return (
            f"gpu_memory_utilization {flags.gpu_memory_utilization} leaves {left // MIB} MiB beside vLLM's share; CUDA "
            f"context, graphs and the sampler's warm-up with {flags.max_num_seqs} sequences may take "
            f"{(CONTEXT_BYTES + graphs + warm_up) // MIB}. Lower max_num_seqs or the utilization."
        )
    return ""


def _notes(case: Case, flags: ServedFlags, version: str) -> tuple[str, ...]:
    found = list(case.model.notes)
    if case.newer:
        newest = ".".join(map(str, NEWEST))
        found.append(
            f"vLLM {version} is newer than {newest}, the newest that was read; its model is used, less certain."
        )
    if not case.engine.hybrid_groups:
        found.append(f"vLLM {version} is older than 0.11 and modelled roughly.")
    if flags.lora_rank_assumed:
        found.append(
            f"No LoRA rank was given; slots of rank {flags.max_lora_rank} are counted, and four times as much "
            "has to fit for a safe answer. Give --max-lora-rank."
        )
    if case.weights.source == "config":
        found.append("Weights are computed from config.json, since no safetensors headers were given.")
    quantisation = case.weights.quantisation
    if quantisation is not None and not quantisation.stated:
        found.append(
            f"Taken as {quantisation.method} weights of {quantisation.bits:.2f} bits; config.json does not say."
        )
    if quantisation is not None and quantisation.method in ("awq", "gptq") and not case.gpu.awq_marlin:
        found.append(f"{case.gpu.name} has no fast kernels for {quantisation.method} (Marlin); it serves slowly.")
    if case.model.dtype == "bfloat16" and flags.dtype == "half":
        found.append("The bfloat16 checkpoint is served in half precision; values beyond 65504 overflow.")
    return tuple(found)


def _memory_sentence(case: Case, flags: ServedFlags, parts: Parts, headroom: int, band: int) -> str:
    needed = parts.non_kv_bytes + case.sequence_bytes(flags)
    return (
        f"One sequence of {flags.max_model_len} tokens needs {needed / GIB:.2f} GiB on {case.gpu.name} "
        f"({case.usable(flags) / GIB:.2f} GiB usable at gpu_memory_utilization {flags.gpu_memory_utilization}): "
        f"headroom {headroom // MIB} MiB, uncertain by {band // MIB} MiB."
    )
