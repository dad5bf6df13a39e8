"""vLLM's serving flags that decide memory, under vLLM's names. Pure.

EngineFlags is what a person asks for, ServedFlags what is estimated and served (resolve.py). What is left open gets
vLLM's own default for the engine's version and the card, and argv() writes all of them out, so the engine that starts
is the one that was estimated.
"""

from dataclasses import dataclass

from serving.fit.fields import MAX_VALUE
from serving.fit.strict_json import is_int

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py MaxLoRARanks
DEFAULT_LORA_RANK = 16
KV_CACHE_DTYPES = ("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "fp8_inc")
DTYPES = ("auto", "bfloat16", "half", "float16", "float32", "float")
MAX_PARALLEL = 1024


class FlagsRefused(Exception):
    """vLLM would refuse the flags, or their effect is not modelled."""


@dataclass(frozen=True)
class EngineFlags:
    """None: vLLM's default for this version, card and model."""

    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    max_loras: int | None = None  # None: one slot for each adapter given; 0: LoRA is off
    max_lora_rank: int | None = None  # None: the smallest of LORA_RANKS that holds the adapters
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    block_size: int | None = None
    language_model_only: bool = False  # the encoder is not loaded

    def __post_init__(self) -> None:
        """Raises FlagsRefused."""
        utilization = self.gpu_memory_utilization
        if utilization is not None and not 0 < utilization <= 1:
            raise refused("gpu_memory_utilization", utilization, "above 0 and at most 1")
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size"):
            _check_integer(name, getattr(self, name), 1, MAX_VALUE)
        _check_integer("max_loras", self.max_loras, 0, MAX_VALUE)
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
            _check_integer(name, getattr(self, name), 1, MAX_PARALLEL)
        if self.block_size and (self.block_size % 8 or self.block_size > 2**16):
            raise refused("block_size", self.block_size, "a multiple of 8, at most 65536")
        self._check_choices()

    def _check_choices(self) -> None:
        if self.dtype not in DTYPES:
            raise refused("dtype", self.dtype, " or ".join(DTYPES))
        if self.kv_cache_dtype not in KV_CACHE_DTYPES:
            raise refused("kv_cache_dtype", self.kv_cache_dtype, " or ".join(KV_CACHE_DTYPES))
        if self.max_lora_rank is not None and self.max_lora_rank not in LORA_RANKS:
            raise refused("max_lora_rank", self.max_lora_rank, f"one of {', '.join(map(str, LORA_RANKS))}")


@dataclass(frozen=True)
class ServedFlags:
    """EngineFlags with nothing left open (resolve.py)."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    dtype: str  # bfloat16, half or float32
    kv_cache_dtype: str
    max_loras: int  # 0: LoRA is off
    max_lora_rank: int  # means nothing when max_loras is 0
    enforce_eager: bool
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    block_size: int = 0  # 0: the attention's own
    quantization: str | None = None
    language_model_only: bool = False
    lora_rank_assumed: bool = False  # slots were asked for, without a rank or an adapter that has one

    @property
    def dtype_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def expert_ways(self) -> int:
        """GPUs that share the experts; 0: as tensor parallel does."""
        return self.tensor_parallel_size * self.data_parallel_size if self.enable_expert_parallel else 0


def padded_rank(r: int) -> int:
    """The smallest max_lora_rank that holds rank r. Raises FlagsRefused above 512."""
    for rank in LORA_RANKS:
        if r <= rank:
            return rank
    raise refused("max_lora_rank", r, f"at most {LORA_RANKS[-1]}")


def argv(flags: ServedFlags) -> tuple[str, ...]:
    """The flags of `vllm serve`, one string each, all written out."""
    lora = ("--enable-lora", f"--max-loras={flags.max_loras}", f"--max-lora-rank={flags.max_lora_rank}")
    parallel = {
        "tensor-parallel-size": flags.tensor_parallel_size,
        "pipeline-parallel-size": flags.pipeline_parallel_size,
        "data-parallel-size": flags.data_parallel_size,
    }
    return (
        f"--dtype={flags.dtype}",
        f"--max-model-len={flags.max_model_len}",
        f"--gpu-memory-utilization={flags.gpu_memory_utilization}",
        f"--max-num-seqs={flags.max_num_seqs}",
        f"--max-num-batched-tokens={flags.max_num_batched_tokens}",
        f"--kv-cache-dtype={flags.kv_cache_dtype}",
        *(f"--{name}={size}" for name, size in parallel.items() if size > 1),
        *(("--enable-expert-parallel",) if flags.enable_expert_parallel else ()),
        *((f"--block-size={flags.block_size}",) if flags.block_size else ()),
        *((f"--quantization={flags.quantization}",) if flags.quantization else ()),
        *(("--language-model-only",) if flags.language_model_only else ()),
        *(("--enforce-eager",) if flags.enforce_eager else ()),
        *(lora if flags.max_loras else ()),
    )


def refused(flag: str, observed: object, required: str) -> FlagsRefused:
    return FlagsRefused(f"{flag} is {str(observed)[:40]!r}; required: {required}. Change --{flag.replace('_', '-')}.")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if value is not None and not (is_int(value) and least <= value <= most):
        raise refused(name, value, f"an integer from {least} to {most}")
