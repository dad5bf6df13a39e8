"""From what is asked (EngineFlags) to what is served (ServedFlags): every flag gets a value, as vLLM would give it. Pure."""

from serving.fit.adapter import AdapterRefused, AdapterShape
from serving.fit.catalogue import GIB, Gpu
from serving.fit.engines import Engine
from serving.fit.flags import DEFAULT_LORA_RANK, EngineFlags, FlagsRefused, ServedFlags, padded_rank, refused
from serving.fit.quantisation import Quantisation
from serving.fit.shapes import Attention, Compressed, Latent, ModelShape, Recurrent

FP8_KV_CAPABILITY = (8, 0)  # FlashInfer and Triton kernels convert on cards without fp8 units (A100, RTX 30)
LARGE_CARD = 70 * GIB
LARGEST_CARD = 160 * GIB
OLD_CHUNKING_FROM = 32768  # V0 chunks prefills of models longer than this by itself
OLD_CHUNK = 2048
OLD_MULTIMODAL_TOKENS = 5120


def resolve(
    model: ModelShape,
    adapters: tuple[AdapterShape, ...],
    gpu: Gpu,
    flags: EngineFlags,
    engine: Engine,
    quantisation: Quantisation | None = None,
) -> ServedFlags:
    """Raises FlagsRefused, and AdapterRefused for a rank above max_lora_rank."""
    _check_card(gpu, flags, quantisation)
    check_parallel(model, flags.tensor_parallel_size, flags.pipeline_parallel_size)
    length = flags.max_model_len or model.max_position_embeddings
    sequences, tokens = default_batch(gpu, engine, length, model.multimodal)
    asked_sequences, asked_tokens = flags.max_num_seqs, flags.max_num_batched_tokens
    if asked_sequences and asked_tokens and asked_tokens < asked_sequences:
        raise refused("max_num_batched_tokens", asked_tokens, f"at least max_num_seqs {asked_sequences}")
    tokens = asked_tokens or max(tokens, asked_sequences or 0)
    return ServedFlags(
        gpu_memory_utilization=flags.gpu_memory_utilization or engine.utilization,
        max_model_len=length,
        max_num_seqs=asked_sequences or min(sequences, tokens),
        max_num_batched_tokens=tokens,
        dtype=_dtype(model, gpu, flags.dtype),
        kv_cache_dtype=_cache_dtype(flags.kv_cache_dtype, gpu, engine, quantisation),
        max_loras=_slots(adapters, flags.max_loras),
        max_lora_rank=_rank(adapters, flags.max_lora_rank),
        enforce_eager=flags.enforce_eager,
        tensor_parallel_size=flags.tensor_parallel_size,
        pipeline_parallel_size=flags.pipeline_parallel_size,
        data_parallel_size=flags.data_parallel_size,
        enable_expert_parallel=flags.enable_expert_parallel,
        block_size=flags.block_size or 0,
        quantization=flags.quantization,
        language_model_only=flags.language_model_only,
        lora_rank_assumed=bool(flags.max_loras) and flags.max_lora_rank is None and not adapters,
    )


def default_batch(gpu: Gpu, engine: Engine, length: int, multimodal: bool) -> tuple[int, int]:
    """max_num_seqs and max_num_batched_tokens of `vllm serve` (engine/arg_utils.py get_batch_defaults, 0.32.0).

    V0 takes a whole prompt in one step, so its batch is max_model_len tokens, until it chunks prefills (config.py,
    0.6.4): this is why a longer length may need less memory.
    """
    if not engine.v1:
        if multimodal:
            return 256, max(length, OLD_MULTIMODAL_TOKENS)
        return 256, OLD_CHUNK if length > OLD_CHUNKING_FROM else max(length, OLD_CHUNK)
    if gpu.memory_bytes >= LARGEST_CARD:
        return 1024, 16384
    if gpu.memory_bytes >= LARGE_CARD and "a100" not in gpu.name.lower():
        return 1024, 8192
    return 256, 2048


def _check_card(gpu: Gpu, flags: EngineFlags, quantisation: Quantisation | None) -> None:
    if flags.kv_cache_dtype.startswith("fp8") and gpu.compute_capability < FP8_KV_CAPABILITY:
        raise FlagsRefused(
            f"kv_cache_dtype {flags.kv_cache_dtype} needs compute capability {_dotted(FP8_KV_CAPABILITY)}; "
            f"{gpu.name} has {_dotted(gpu.compute_capability)}. Use --kv-cache-dtype=auto."
        )
    if quantisation is not None and gpu.compute_capability < quantisation.capability:
        raise FlagsRefused(
            f"{quantisation.method} weights need compute capability {_dotted(quantisation.capability)}; "
            f"{gpu.name} has {_dotted(gpu.compute_capability)}. Serve an unquantised or GPTQ checkpoint, or a newer GPU."
        )


def check_parallel(model: ModelShape, ways: int, stages: int) -> None:
    """vllm/config/model.py verify_with_parallel_config, and divide() in the layers themselves. Raises FlagsRefused."""
    heads = {
        mixer.heads if isinstance(mixer, Attention | Latent | Compressed) else mixer.value_heads
        for layer, _ in model.distinct_layers
        if isinstance(mixer := layer.mixer, Attention | Latent | Compressed | Recurrent)
    }
    for number in heads:
        if number % ways:
            raise refused("tensor_parallel_size", ways, f"a divisor of the {number} attention heads")
    kv_heads = {mixer.kv_heads for mixer in model.attentions if isinstance(mixer, Attention)}
    for number in kv_heads:
        if max(number, ways) % min(number, ways):
            raise refused("tensor_parallel_size", ways, f"a divisor or multiple of the {number} key-value heads")
    if -(-model.vocab_size // 64) * 64 % ways:
        raise refused("tensor_parallel_size", ways, f"a divisor of the padded vocabulary of {model.vocab_size}")
    if stages > model.num_hidden_layers:
        raise refused("pipeline_parallel_size", stages, f"at most {model.num_hidden_layers} layers")


def _cache_dtype(asked: str, gpu: Gpu, engine: Engine, quantisation: Quantisation | None) -> str:
    """auto takes an fp8 cache where the checkpoint has scales for it (utils/torch_utils.py, kv_cache_dtype_str_to_dtype)."""
    stored = quantisation is not None and quantisation.fp8_cache and engine.hybrid_groups
    return "fp8" if asked == "auto" and stored and gpu.compute_capability >= FP8_KV_CAPABILITY else asked


def _dtype(model: ModelShape, gpu: Gpu, asked: str) -> str:
    """vLLM's rule for auto (config/model.py): float32 is cast down, bfloat16 becomes half where the card lacks it."""
    if asked == "bfloat16" and not gpu.bf16:
        raise FlagsRefused(f"dtype is bfloat16, which {gpu.name} does not compute; required: half. Use --dtype=half.")
    if asked != "auto":
        return {"float16": "half", "float": "float32"}.get(asked, asked)
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


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
