"""What vLLM puts on one GPU, part by part, in bytes. Pure.

vLLM measures instead of computing: it loads the weights, runs a dummy batch (activation.py), from 0.21 on captures two
CUDA graphs of each kind, and gives the rest of memory × gpu_memory_utilization to the KV cache
(vllm/v1/worker/gpu_worker.py determine_available_memory). Each function here computes one of those measurements.
"""

from dataclasses import dataclass

from serving.fit.activation import activation_bytes
from serving.fit.catalogue import GIB, MIB, Gpu
from serving.fit.engines import Engine
from serving.fit.flags import ServedFlags
from serving.fit.kv import KvLayout
from serving.fit.matrices import Matrix, layer_matrices, lora_sizes
from serving.fit.shapes import Experts, Layer, ModelShape
from serving.fit.weights import Weights

DEFAULT_CAPTURES = 51  # batch sizes that vLLM captures by default: 1, 2, 4, 8 to 248 by 8, 256 to 512 by 16
GRAPH_BASE, GRAPH_FIXED, GRAPH_LAYER, GRAPH_EXPERT_LAYER = 307 * MIB, 102 * MIB, 17 * MIB, 30 * MIB
MANY_EXPERTS = (
    17  # from here on a layer's graph has the experts' sorting kernels of its own: gpt-oss-20b 1.55 to 1.84 GiB
)
OLD_GRAPH_BASE, OLD_GRAPH_LAYER = 60 * MIB, 5 * MIB
# NCCL's and the custom all-reduce's buffers: 1.82 to 1.96 GiB above one GPU's on H100 and A100 with NVLink (llm-d logs,
# DeepSeek-Coder-V2-Lite), 0.1 to 0.3 GiB between cards on PCIe (InternVL3-78B, DeepSeek-R1 on RTX 3090).
NVLINK_BYTES, PCIE_BYTES = int(1.85 * GIB), int(0.25 * GIB)


@dataclass(frozen=True)
class Parts:
    weights_bytes: int
    activation_bytes: int
    cuda_graph_bytes: int
    graphs_in_budget: bool
    non_torch_bytes: int
    lora_bytes: int

    @property
    def non_kv_bytes(self) -> int:
        """What is taken off the usable memory before the KV cache gets the rest."""
        return (
            self.weights_bytes
            + self.activation_bytes
            + (self.cuda_graph_bytes if self.graphs_in_budget else 0)
            + self.non_torch_bytes
            + self.lora_bytes
        )


def compute_parts(model: ModelShape, weights: Weights, gpu: Gpu, flags: ServedFlags, engine: Engine) -> Parts:
    copy = 0
    if weights.quantisation is not None and weights.quantisation.method == "bitsandbytes":
        copy = _largest_matrix(model) * flags.dtype_bytes // flags.tensor_parallel_size
    return Parts(
        weights_bytes=weights.on_gpu(
            flags.dtype_bytes, flags.tensor_parallel_size, flags.pipeline_parallel_size, flags.expert_ways, engine.v1
        )
        - _unloaded(model, flags),
        activation_bytes=activation_bytes(model, flags, engine, copy),
        cuda_graph_bytes=cuda_graph_bytes(model, flags, engine),
        graphs_in_budget=engine.graphs_in_budget,
        non_torch_bytes=non_torch_bytes(gpu, flags, engine),
        lora_bytes=lora_bytes(model, flags),
    )


def kv_tokens(layout: KvLayout, blocks: int, length: int, in_flight: int, states: int) -> int:
    """The capacity that "GPU KV cache size" gives: concurrency × max_model_len (get_kv_cache_capacity, 0.32.0).

    For models whose layers are all of one kind this is blocks × block size, as older engines print it.
    """
    if not layout.groups:
        return 0
    if len(layout.groups) == 1:
        return blocks * max(layout.groups[0].page.tokens, 1)
    return int(blocks / layout.sequence_blocks(length, in_flight, states) * length)


def non_torch_bytes(gpu: Gpu, flags: ServedFlags, engine: Engine) -> int:
    if flags.tensor_parallel_size == 1:
        return engine.non_torch_bytes
    return engine.non_torch_bytes + (NVLINK_BYTES if gpu.nvlink else PCIE_BYTES)


def cuda_graph_bytes(model: ModelShape, flags: ServedFlags, engine: Engine) -> int:
    """Captured graphs: 0.3 GiB + (0.1 + 0.017 × layers) GiB for the default 51 batch sizes, in proportion for fewer.

    A fit to what vLLM 0.19 logged on an H100 (28 layers 0.88 GiB, 40 layers 0.98 to 1.07, 80 layers 1.61 to 1.85); fewer
    than 8 sizes cost 0.05 GiB (Qwen2.5-3B, 8 sequences). gpt-oss captures sizes up to 1024. With LoRA each size is
    captured with and without an adapter (cudagraph_specialize_lora), so the proportional part counts twice. V0 captured
    decode steps only: 0.17 GiB for 28 layers, 0.27 for 40.
    """
    if flags.enforce_eager:
        return 0
    if not engine.v1:
        return OLD_GRAPH_BASE + OLD_GRAPH_LAYER * model.num_hidden_layers
    most = 1024 if model.model_type == "gpt_oss" else 512
    sizes = _capture_sizes(min(2 * flags.max_num_seqs, most, flags.max_num_batched_tokens))
    layers = sum(times * _graph_bytes(layer) for layer, times in model.distinct_layers)
    captured = (GRAPH_FIXED + layers) * sizes // DEFAULT_CAPTURES
    base = GRAPH_BASE * min(sizes, DEFAULT_CAPTURES) // DEFAULT_CAPTURES
    return base + captured * (2 if flags.max_loras else 1)


def _graph_bytes(layer: Layer) -> int:
    many = isinstance(layer.mlp, Experts) and layer.mlp.count >= MANY_EXPERTS
    return GRAPH_EXPERT_LAYER if many else GRAPH_LAYER


def _capture_sizes(largest: int) -> int:
    """How many batch sizes are captured up to the largest (config/vllm.py _set_cudagraph_sizes)."""
    small = sum(size <= largest for size in (1, 2, 4))
    return small + len(range(8, min(largest + 1, 256), 8)) + len(range(256, largest + 1, 16))


def lora_bytes(model: ModelShape, flags: ServedFlags) -> int:
    """LoRA slots: max_loras × max_lora_rank A and B buffers for every linear layer, adapted or not (vllm/lora/layers).

    A takes in × rank and B rank × out values; fused layers (qkv, gate_up) keep one pair for each of their slices.
    Tensor parallel splits the B of column-parallel layers and the A of row-parallel ones. Experts have a pair each.
    Llama-3.1-8B with 2 slots of rank 16 gives 0.17 GiB; 14.99 → 15.17 GiB logged.
    """
    if not flags.max_loras:
        return 0
    ways = flags.tensor_parallel_size
    layers = sum(
        times * sum(_lora_values(matrix, ways) for matrix in lora_sizes(model, layer).values())
        for layer, times in model.distinct_layers
    )
    embeddings = 2 * (model.vocab_size + model.hidden_size) if model.lora_on_embeddings else 0
    return (
        flags.max_loras
        * flags.max_lora_rank
        * flags.dtype_bytes
        * (layers // flags.pipeline_parallel_size + embeddings)
    )


def _lora_values(matrix: Matrix, ways: int) -> int:
    if matrix.split == "columns":
        return matrix.columns // ways + matrix.rows
    share = min(ways, matrix.heads) if matrix.split == "heads" else ways
    return (matrix.columns + matrix.rows // share) * matrix.copies


def _largest_matrix(model: ModelShape) -> int:
    sizes = [
        matrix.rows * matrix.columns * (2 if matrix.name.endswith(("gate_proj", "up_proj")) else 1)
        for layer, _ in model.distinct_layers
        for matrix in layer_matrices(layer, model.model_type, model.hidden_size)
        if matrix.quantised
    ]
    return max(sizes, default=0)


def _unloaded(model: ModelShape, flags: ServedFlags) -> int:
    if not flags.language_model_only:
        return 0
    return sum(tower.parameters for tower in model.towers) * flags.dtype_bytes // flags.tensor_parallel_size
