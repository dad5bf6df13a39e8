"""What vLLM puts on the GPU, part by part, in bytes. Pure.

vLLM measures instead of computing: it loads the weights, runs one dummy batch of max_num_batched_tokens tokens and one
sampler step of max_num_seqs sequences, captures two CUDA graphs of each kind, and gives the rest of memory ×
gpu_memory_utilization to the KV cache (vllm/v1/worker/gpu_worker.py determine_available_memory). Each function here
computes one of those measurements.
"""

from dataclasses import dataclass

from serving.fit.catalogue import GIB, MIB, Gpu
from serving.fit.config import ModelShape
from serving.fit.engines import Engine
from serving.fit.flags import ServedFlags

BLOCK_TOKENS = 16  # --block-size default on CUDA
SERVED_DTYPE_BYTES = 2  # bfloat16 and half; float32 is not served
FLASH_ATTENTION_CAPABILITY = (8, 0)
DEFAULT_CAPTURES = 51  # batch sizes that vLLM captures by default: 1, 2, 4, 8 to 248 by 8, 256 to 512 by 16


@dataclass(frozen=True)
class Parts:
    weights_bytes: int
    activation_bytes: int
    cuda_graph_bytes: int
    non_torch_bytes: int
    lora_bytes: int
    sequence_bytes: int  # KV cache of one sequence of max_model_len
    block_bytes: int  # one KV block over all layers
    uncertainty_bytes: int

    @property
    def non_kv_bytes(self) -> int:
        return (
            self.weights_bytes + self.activation_bytes + self.cuda_graph_bytes + self.non_torch_bytes + self.lora_bytes
        )


def compute_parts(model: ModelShape, weights_bytes: int, gpu: Gpu, flags: ServedFlags, engine: Engine) -> Parts:
    activation, graphs = activation_bytes(model, flags, engine), cuda_graph_bytes(model, flags)
    return Parts(
        weights_bytes=weights_bytes,
        activation_bytes=activation,
        cuda_graph_bytes=graphs,
        non_torch_bytes=engine.non_torch_bytes,
        lora_bytes=lora_bytes(model, flags.max_loras, flags.max_lora_rank),
        sequence_bytes=kv_bytes(model, flags.max_model_len, flags.kv_cache_dtype),
        block_bytes=kv_bytes_per_token(model, flags.kv_cache_dtype) * BLOCK_TOKENS,
        uncertainty_bytes=uncertainty_bytes(gpu, weights_bytes, activation, graphs, flags.kv_cache_dtype),
    )


def kv_bytes_per_token(model: ModelShape, kv_cache_dtype: str) -> int:
    """Keys and values: 2 × layers × KV heads × head_dim × bytes; fp8 takes 1 byte, auto the served dtype's 2.

    Source: vllm/v1/kv_cache_interface.py.
    """
    value_bytes = SERVED_DTYPE_BYTES if kv_cache_dtype == "auto" else 1
    return 2 * model.num_hidden_layers * model.key_value_size * value_bytes


def kv_bytes(model: ModelShape, tokens: int, kv_cache_dtype: str) -> int:
    """KV cache for one sequence: whole blocks, and the null block that vLLM keeps back (v1/core/kv_cache_utils.py)."""
    blocks = -(-tokens // BLOCK_TOKENS) + 1
    return blocks * BLOCK_TOKENS * kv_bytes_per_token(model, kv_cache_dtype)


def kv_tokens(available_bytes: int, block_bytes: int) -> int:
    """Tokens that the rest of the memory holds, in whole blocks without the null block."""
    return max(available_bytes // block_bytes - 1, 0) * BLOCK_TOKENS


def activation_bytes(model: ModelShape, flags: ServedFlags, engine: Engine) -> int:
    """Peak of the profile run above the weights; T = max_num_batched_tokens, S = max_num_seqs, values of 2 bytes.

    Throughout: three hidden states of T × hidden_size (input, residual, output; 6 bytes a value, 4.6 to 7.2 measured).
    On top, the larger of
    - the widest layer: gate and up (2 × intermediate_size) and their product (1 ×), or q, k, v and the attention's
      output, for T tokens; Qwen2.5-7B with T = 32768 gives 4.1 GiB where 4.35 were logged;
    - the sampler: S × vocab_size × Engine.logit_bytes.
    LoRA adds the float32 intermediates of three slices: 3 × T × rank × 4 (vllm/lora/punica_wrapper/punica_gpu.py).
    """
    tokens, sequences = flags.max_num_batched_tokens, min(flags.max_num_seqs, flags.max_num_batched_tokens)
    hidden = 3 * model.hidden_size * tokens * SERVED_DTYPE_BYTES
    width = max(3 * model.intermediate_size, 2 * model.query_size + 2 * model.key_value_size)
    layer = width * tokens * SERVED_DTYPE_BYTES
    sampler = sequences * model.vocab_size * engine.logit_bytes
    lora = 3 * tokens * flags.max_lora_rank * 4 if flags.max_loras else 0
    return hidden + max(layer, sampler) + lora


def cuda_graph_bytes(model: ModelShape, flags: ServedFlags) -> int:
    """Captured graphs: 0.3 GiB + (0.1 + 0.017 × layers) GiB for the default 51 batch sizes, in proportion for fewer.

    A fit to what vLLM 0.19 logged on an H100 (28 layers 0.88 GiB, 40 layers 0.98 to 1.07, 46 layers 1.23) and on
    a later 8 GB card (28 layers 0.94). With LoRA each size is captured with and without an adapter
    (cudagraph_specialize_lora), so the proportional part counts twice. From 0.21 on vLLM takes the graphs out of the
    budget; before, they came on top of it, and counting them is the safe side.
    """
    if flags.enforce_eager:
        return 0
    sizes = _capture_sizes(min(2 * flags.max_num_seqs, 512, flags.max_num_batched_tokens))
    captured = (102 + 17 * model.num_hidden_layers) * MIB * sizes // DEFAULT_CAPTURES
    return 307 * MIB + captured * (2 if flags.max_loras else 1)


def _capture_sizes(largest: int) -> int:
    """How many batch sizes are captured up to the largest (config/vllm.py _set_cudagraph_sizes)."""
    small = sum(size <= largest for size in (1, 2, 4))
    return small + len(range(8, min(largest + 1, 256), 8)) + len(range(256, largest + 1, 16))


def lora_bytes(model: ModelShape, slots: int, rank: int) -> int:
    """LoRA slots: max_loras × max_lora_rank A and B buffers for every linear layer, adapted or not (vllm/lora/layers).

    A takes in × rank and B rank × out values; fused layers (qkv, gate_up) keep one pair for each of their slices.
    Llama-3.1-8B with 2 slots of rank 16 gives 0.17 GiB; 14.99 → 15.17 GiB logged.
    """
    layer = sum(width_in + width_out for width_in, width_out in model.linear_sizes.values())
    embeddings = 2 * (model.vocab_size + model.hidden_size) if model.lora_on_embeddings else 0
    return slots * rank * SERVED_DTYPE_BYTES * (model.num_hidden_layers * layer + embeddings)


def uncertainty_bytes(gpu: Gpu, weights_bytes: int, activation: int, graphs: int, kv_cache_dtype: str) -> int:
    """Half-width of the band around the headroom: the errors seen, added up so that it holds when all go one way.

    0.5 % of the memory: one card name reports totals that differ by that (A100 40 GB: 39.38 to 39.56 GiB).
    0.5 % of the weights, 25 % of the activation, 50 % of the CUDA graphs: spread of the logs around the formulas above.
    0.25 GiB: non-torch memory (0.13 to 0.46 GiB logged) and the allocator's rounding.
    1.5 GiB with an fp8 KV cache: FlashInfer's workspaces (0.07 → 2.35 GiB seen in one model when it was switched on).
    0.5 GiB below compute capability 8.0: other attention kernels, and no measurement of the V1 engine to compare with.
    """
    band = gpu.memory_bytes // 200 + weights_bytes // 200 + activation // 4 + graphs // 2 + GIB // 4
    band += 0 if kv_cache_dtype == "auto" else 3 * GIB // 2
    return band + (0 if gpu.compute_capability >= FLASH_ATTENTION_CAPABILITY else GIB // 2)
