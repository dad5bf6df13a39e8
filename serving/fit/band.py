"""How far a FitReport may be off: the half-width of the band around the headroom, from the errors seen. Pure.

Independent errors are added as squares, so the band is honest about their chance of all going one way; what differs by
family or by version is named for itself. The shares come from the logs in tests/data/fit_points.jsonl; the bench prints
how often the logged KV cache lies inside the band, also with each source left out.
"""

from math import hypot

from serving.fit.catalogue import GIB, MIB, Gpu
from serving.fit.engines import UNKNOWN_BAND, Engine
from serving.fit.flags import ServedFlags
from serving.fit.parts import Parts
from serving.fit.shapes import Compressed, ModelShape
from serving.fit.weights import Weights

CATALOGUE_SHARE = 0.005  # one card name reports totals that differ by that (A100 40 GB: 39.38 to 39.56 GiB)
ACTIVATION_SHARE, OLD_ACTIVATION_SHARE = 0.15, 0.5
ACTIVATION_BYTES = 100 * MIB  # allocator's rounding and fragments, whatever the size
GRAPH_SHARE = 0.35  # of graphs inside the budget
NON_TORCH_BYTES = 150 * MIB  # 0.01 to 0.46 GiB on one GPU
PARALLEL_BYTES = int(0.6 * GIB)  # 0.3 to 2.2 GiB with tensor parallel, by link and driver
FP8_KV_BYTES = 512 * MIB  # FlashInfer's workspaces, which an fp8 cache may switch on
OLD_CARD_BYTES = 256 * MIB  # below compute capability 8.0: other attention kernels
LORA_SHARE = 0.3  # slots of modules that an adapter does not touch, by version
ENCODER_SHARE = 0.5  # the encoder's pass; item sizes come from a processor's file that is not read
OLD_ENCODER_SHARE = 0.12  # of the card: V0 profiles as many images as fit, 36.6 GiB in one log
COMPRESSED_SHARE = 0.35  # of a sequence's cache: DeepSeek-V4's states follow the kernels of each version
COMPRESSED_CARD_SHARE = 0.06  # its kernels' workspaces: 4.5 and 5.4 GiB more than the formulas in two logs


def uncertainty_bytes(
    model: ModelShape,
    weights: Weights,
    gpu: Gpu,
    flags: ServedFlags,
    engine: Engine,
    parts: Parts,
    sequence_bytes: int,
    encoder_bytes: int,
    newer: bool,
) -> int:
    """`encoder_bytes`: of one pass of the encoder. `newer`: the version is after the newest that was read."""
    usable_share = 0.0 if gpu.reported else CATALOGUE_SHARE
    activation = ACTIVATION_SHARE if engine.v1 else OLD_ACTIVATION_SHARE
    images = ENCODER_SHARE * encoder_bytes if model.multimodal else 0.0
    if model.multimodal and not engine.v1:
        images = OLD_ENCODER_SHARE * gpu.memory_bytes
    compressed = any(isinstance(mixer, Compressed) for mixer in model.attentions)
    errors = (
        usable_share * gpu.memory_bytes,
        weights.band * parts.weights_bytes,
        activation * parts.activation_bytes,
        ACTIVATION_BYTES,
        GRAPH_SHARE * parts.cuda_graph_bytes if parts.graphs_in_budget else 0.0,
        NON_TORCH_BYTES if flags.tensor_parallel_size == 1 else PARALLEL_BYTES,
        FP8_KV_BYTES if flags.kv_cache_dtype.startswith("fp8") else 0.0,
        OLD_CARD_BYTES if not gpu.bf16 else 0.0,
        LORA_SHARE * parts.lora_bytes,
        images,
        COMPRESSED_SHARE * sequence_bytes if compressed else 0.0,
        COMPRESSED_CARD_SHARE * gpu.memory_bytes if compressed else 0.0,
    )
    return int(hypot(*errors) + (engine.band_share + (UNKNOWN_BAND if newer else 0.0)) * gpu.memory_bytes)
