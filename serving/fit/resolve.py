"""From what is asked (EngineFlags) to what is served (ServedFlags): every flag gets a value. Pure."""

from serving.fit.adapter import AdapterRefused, AdapterShape
from serving.fit.catalogue import Gpu
from serving.fit.config import ModelShape
from serving.fit.flags import DEFAULT_LORA_RANK, EngineFlags, FlagsRefused, ServedFlags, padded_rank

FP8_KV_CAPABILITY = (8, 9)  # hardware fp8; an fp8 KV cache on older cards depends on the attention backend


def resolve(model: ModelShape, adapters: tuple[AdapterShape, ...], gpu: Gpu, flags: EngineFlags) -> ServedFlags:
    """Raises FlagsRefused, and AdapterRefused for a rank above max_lora_rank."""
    if flags.kv_cache_dtype != "auto" and gpu.compute_capability < FP8_KV_CAPABILITY:
        raise FlagsRefused(
            f"kv_cache_dtype {flags.kv_cache_dtype} needs compute capability 8.9; {gpu.name} has less. "
            "Use --kv-cache-dtype=auto."
        )
    return ServedFlags(
        gpu_memory_utilization=flags.gpu_memory_utilization,
        max_model_len=flags.max_model_len or model.max_position_embeddings,
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        dtype=_dtype(model, gpu, flags.dtype),
        kv_cache_dtype=flags.kv_cache_dtype,
        max_loras=_slots(adapters, flags.max_loras),
        max_lora_rank=_rank(adapters, flags.max_lora_rank),
        enforce_eager=flags.enforce_eager,
    )


def _dtype(model: ModelShape, gpu: Gpu, asked: str) -> str:
    """vLLM's rule for auto (config/model.py): float32 is cast down, bfloat16 becomes half where the card lacks it."""
    if asked == "bfloat16" and not gpu.bf16:
        raise FlagsRefused(f"dtype is bfloat16, which {gpu.name} does not compute; required: half. Use --dtype=half.")
    if asked != "auto":
        return asked
    return "half" if model.dtype == "float16" or not gpu.bf16 else "bfloat16"


def _slots(adapters: tuple[AdapterShape, ...], asked: int | None) -> int:
    if adapters and asked == 0:
        raise FlagsRefused("max_loras is 0 and an adapter is to be served; required: 1 or more. Use --max-loras=1.")
    return len(adapters) if asked is None else asked


def _rank(adapters: tuple[AdapterShape, ...], asked: int | None) -> int:
    largest = max((adapter.r for adapter in adapters), default=asked or DEFAULT_LORA_RANK)
    if asked is not None and largest > asked:
        raise AdapterRefused(
            f"An adapter has rank {largest}; max_lora_rank is {asked}. Use --max-lora-rank={padded_rank(largest)}."
        )
    return padded_rank(largest) if asked is None else asked
