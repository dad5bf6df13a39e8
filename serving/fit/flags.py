"""vLLM's serving flags that decide memory, under vLLM's names. Pure.

EngineFlags is what a person asks for, ServedFlags what is estimated and served. Defaults are those of `vllm serve` 0.23
on a card below 70 GB; they are always written out in argv(), so the engine that starts is the one that was estimated,
whatever its own defaults are.
"""

from dataclasses import dataclass

from serving.fit.config import MAX_VALUE
from serving.fit.strict_json import is_int

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py MaxLoRARanks
DEFAULT_LORA_RANK = 16
KV_CACHE_DTYPES = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
DTYPES = ("auto", "bfloat16", "half")


class FlagsRefused(Exception):
    """vLLM would refuse the flags, or their effect is not modelled."""


@dataclass(frozen=True)
class EngineFlags:
    gpu_memory_utilization: float = 0.92
    max_model_len: int | None = None  # None: the model's max_position_embeddings
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    dtype: str = "auto"  # auto: the checkpoint's; bfloat16 for a float32 one; half on a card without bfloat16
    kv_cache_dtype: str = "auto"
    max_loras: int | None = None  # None: one slot for each adapter given; 0: LoRA is off
    max_lora_rank: int | None = None  # None: the smallest of LORA_RANKS that holds the adapters
    enforce_eager: bool = False
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        """Raises FlagsRefused."""
        if not 0 < self.gpu_memory_utilization <= 1:
            raise _refused("gpu_memory_utilization", self.gpu_memory_utilization, "above 0 and at most 1")
        for name, least in (("max_model_len", 1), ("max_num_seqs", 1), ("max_num_batched_tokens", 1), ("max_loras", 0)):
            value = getattr(self, name)
            if value is not None and not (is_int(value) and least <= value <= MAX_VALUE):
                raise _refused(name, value, f"an integer from {least}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise _refused(
                "max_num_batched_tokens", self.max_num_batched_tokens, f"at least max_num_seqs {self.max_num_seqs}"
            )
        if self.tensor_parallel_size != 1:
            raise _refused("tensor_parallel_size", self.tensor_parallel_size, "1, the only one that is modelled")
        self._check_choices()

    def _check_choices(self) -> None:
        if self.dtype not in DTYPES:
            raise _refused("dtype", self.dtype, " or ".join(DTYPES))
        if self.kv_cache_dtype not in KV_CACHE_DTYPES:
            raise _refused("kv_cache_dtype", self.kv_cache_dtype, " or ".join(KV_CACHE_DTYPES))
        if self.max_lora_rank is not None and self.max_lora_rank not in LORA_RANKS:
            raise _refused("max_lora_rank", self.max_lora_rank, f"one of {', '.join(map(str, LORA_RANKS))}")


@dataclass(frozen=True)
class ServedFlags:
    """EngineFlags with nothing left open (resolve.py)."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    dtype: str  # bfloat16 or half
    kv_cache_dtype: str
    max_loras: int  # 0: LoRA is off
    max_lora_rank: int  # means nothing when max_loras is 0
    enforce_eager: bool


def padded_rank(r: int) -> int:
    """The smallest max_lora_rank that holds rank r. Raises FlagsRefused above 512."""
    for rank in LORA_RANKS:
        if r <= rank:
            return rank
    raise _refused("max_lora_rank", r, f"at most {LORA_RANKS[-1]}")


def argv(flags: ServedFlags) -> tuple[str, ...]:
    """The flags of `vllm serve`, one string each, all written out."""
    lora = ("--enable-lora", f"--max-loras={flags.max_loras}", f"--max-lora-rank={flags.max_lora_rank}")
    return (
        f"--dtype={flags.dtype}",
        f"--max-model-len={flags.max_model_len}",
        f"--gpu-memory-utilization={flags.gpu_memory_utilization}",
        f"--max-num-seqs={flags.max_num_seqs}",
        f"--max-num-batched-tokens={flags.max_num_batched_tokens}",
        f"--kv-cache-dtype={flags.kv_cache_dtype}",
        *(("--enforce-eager",) if flags.enforce_eager else ()),
        *(lora if flags.max_loras else ()),
    )


def _refused(flag: str, observed: object, required: str) -> FlagsRefused:
    return FlagsRefused(f"{flag} is {str(observed)[:40]!r}; required: {required}. Change --{flag.replace('_', '-')}.")
