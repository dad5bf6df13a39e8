"""One model on one card with one engine: parts, headroom and band as functions of the flags alone. Pure.

The verdict (estimate.py), what would fit instead (inverse.py) and the proposed changes (changes.py) all ask it.
"""

from dataclasses import dataclass, field

from serving.fit.activation import encoder_bytes
from serving.fit.adapter import AdapterShape
from serving.fit.band import uncertainty_bytes
from serving.fit.catalogue import Gpu
from serving.fit.engines import Engine
from serving.fit.flags import ServedFlags
from serving.fit.kv import KvLayout, lay_out
from serving.fit.parts import Parts, compute_parts
from serving.fit.shapes import ModelShape
from serving.fit.weights import Weights

UNSTATED_RANK = 4  # times vLLM's default of 16: adapters of rank 64 are as common
_LayoutKey = tuple[str, int, int, int]


@dataclass(frozen=True)
class Case:
    """What is served where; only the flags are open to change."""

    model: ModelShape
    weights: Weights
    adapters: tuple[AdapterShape, ...]
    gpu: Gpu
    engine: Engine
    newer: bool = False  # the version is after the newest that was read
    layouts: dict[_LayoutKey, KvLayout] = field(default_factory=dict, compare=False, repr=False)

    def usable(self, flags: ServedFlags) -> int:
        return int(self.gpu.memory_bytes * flags.gpu_memory_utilization)

    def parts(self, flags: ServedFlags) -> Parts:
        return compute_parts(self.model, self.weights, self.gpu, flags, self.engine)

    def layout(self, flags: ServedFlags) -> KvLayout:
        """The layout does not depend on the length, so it is made once for each cache dtype and parallel size."""
        key = (flags.kv_cache_dtype, flags.dtype_bytes, flags.tensor_parallel_size, flags.block_size)
        if key not in self.layouts:
            self.layouts[key] = lay_out(self.model, self.engine, *key)
        return self.layouts[key]

    def block_bytes(self, flags: ServedFlags) -> int:
        return max(self.layout(flags).block_bytes // flags.pipeline_parallel_size, 1)

    def in_flight(self, flags: ServedFlags) -> int:
        return flags.max_num_batched_tokens * self.engine.batches_in_flight

    def sequence_blocks(self, flags: ServedFlags) -> int:
        return self.layout(flags).sequence_blocks(flags.max_model_len, self.in_flight(flags), self.engine.states)

    def sequence_bytes(self, flags: ServedFlags) -> int:
        return self.sequence_blocks(flags) * self.block_bytes(flags)

    def available(self, flags: ServedFlags) -> int:
        """What is left for the KV cache; negative when the parts alone are too much."""
        return self.usable(flags) - self.parts(flags).non_kv_bytes

    def headroom(self, flags: ServedFlags) -> int:
        return self.available(flags) - self.sequence_bytes(flags)

    def band(self, flags: ServedFlags) -> int:
        return uncertainty_bytes(
            self.model,
            self.weights,
            self.gpu,
            flags,
            self.engine,
            self.parts(flags),
            self.sequence_bytes(flags),
            encoder_bytes(self.model, flags),
            self.newer,
        )

    def unstated(self, flags: ServedFlags) -> int:
        """What LoRA slots without a rank would take more, if the adapters turn out to have the larger common rank."""
        return (UNSTATED_RANK - 1) * self.parts(flags).lora_bytes if flags.lora_rank_assumed else 0

    def certain(self, flags: ServedFlags) -> bool:
        """Whether memory alone would be called "fits"."""
        return self.headroom(flags) > self.band(flags) + self.unstated(flags)
