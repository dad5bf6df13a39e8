"""The peak of vLLM's profile run above the weights: layers, sampler, experts' buffers, encoder. Pure.

vLLM runs one dummy batch of T = max_num_batched_tokens tokens and then the sampler for S = max_num_seqs sequences
(v1/worker/gpu_model_runner.py profile_run); what the allocator held at most is the activation. h is hidden_size, values
have 2 bytes. The numbers behind each factor are in docs/gpu-fit.md.
"""

from serving.fit.engines import Engine
from serving.fit.flags import ServedFlags
from serving.fit.shapes import Attention, Compressed, Dense, Experts, Latent, Layer, ModelShape, Recurrent, Tower

CHUNK = 32768  # tokens the experts' kernels take at once (VLLM_FUSED_MOE_CHUNK_SIZE)
LIVE_STATES = 4  # hidden states alive in a layer: input, residual, normed, output
SAMPLED_STATES = 2.5  # alive while the sampler runs: hidden states, residual, and half of one more
LATENT_WORKSPACE_TOKENS = 65536  # MLA's chunked context (attention/backends/mla/common.py)


def activation_bytes(model: ModelShape, flags: ServedFlags, engine: Engine, dequantised_bytes: int = 0) -> int:
    """The larger of the widest layer for T tokens and the sampler for S sequences.

    A layer: LIVE_STATES × T × h, and its MLP's gate, up and product (3 × width) or its query, key, value and output.
    V0 with Qwen2.5-7B and T = 32768 gives 4.35 GiB where 4.35 were logged, Qwen2.5-1.5B on a T4 2.02 where 2.02 were.
    The sampler: S × vocab × Engine.logit_bytes, with SAMPLED_STATES × T × h; not divided by tensor parallel, because
    the logits are gathered: gpt-oss-20b logs 2.87 GiB with one GPU and with two.
    Experts' buffers (T × chosen × widths) outlive the layer in engines that keep them: Mixtral logs 1.21, this 1.21.
    `dequantised_bytes`: bitsandbytes' 16-bit copy of the matrix at hand.
    """
    tokens, sequences = flags.max_num_batched_tokens, min(flags.max_num_seqs, flags.max_num_batched_tokens)
    states = model.hidden_size * model.streams * tokens * flags.dtype_bytes
    widest = max((_layer_bytes(layer, flags, model.hidden_size) for layer, _ in model.distinct_layers), default=0)
    layer = LIVE_STATES * states + widest
    sampler = int(SAMPLED_STATES * states) + sequences * model.vocab_size * engine.logit_bytes
    if engine.moe_workspace:
        sampler += max((_workspace(layer.mlp, flags, model) for layer, _ in model.distinct_layers), default=0)
    # Images' embeddings and the encoder's cache hold T more states (v1/worker/gpu_model_runner.py profile_run).
    images = states if model.multimodal and not flags.language_model_only else 0
    lora = 3 * tokens * flags.max_lora_rank * 4 if flags.max_loras else 0  # float32, three slices (lora/punica_wrapper)
    aside = images + lora + _latent_workspace(model, flags) + dequantised_bytes
    if not engine.v1:
        layer += _masked_scores(model, flags)
    peak = max(layer, sampler) + aside
    return max(peak, encoder_bytes(model, flags))


def encoder_bytes(model: ModelShape, flags: ServedFlags) -> int:
    """One pass of the encoder over as many of the largest items as the batch takes: 3 × width and 5 × hidden a patch."""
    if flags.language_model_only:
        return 0
    return max((_tower_bytes(tower, flags) for tower in model.towers), default=0)


def _tower_bytes(tower: Tower, flags: ServedFlags) -> int:
    items = max(min(flags.max_num_batched_tokens // tower.tokens, flags.max_num_seqs), 1)
    width = 3 * tower.width // flags.tensor_parallel_size + 5 * tower.hidden
    return items * tower.patches * width * flags.dtype_bytes


def _layer_bytes(layer: Layer, flags: ServedFlags, hidden: int) -> int:
    """Above the hidden states, on one GPU of the tensor parallel group."""
    tokens, ways, value = flags.max_num_batched_tokens, flags.tensor_parallel_size, flags.dtype_bytes
    mlp = layer.mlp
    inner = 0
    if isinstance(mlp, Dense):
        inner = (3 if mlp.gated else 2) * mlp.width // ways * tokens * value
    elif isinstance(mlp, Experts):
        shared = 3 * (mlp.shared + mlp.beside) // ways * tokens * value
        inner = max(_expert_buffers(mlp, flags, hidden), shared)
    return max(inner, _mixer_width(layer) // ways * tokens * value)


def _mixer_width(layer: Layer) -> int:
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        return (3 if mixer.gated else 2) * mixer.heads * mixer.head_dim + 2 * mixer.kv_heads * mixer.head_dim
    if isinstance(mixer, Latent):
        return 2 * mixer.heads * (mixer.nope_dim + mixer.rope_dim) + 2 * mixer.heads * (mixer.nope_dim + mixer.v_dim)
    if isinstance(mixer, Compressed):
        return 3 * mixer.heads * mixer.head_dim
    if isinstance(mixer, Recurrent):
        return 3 * (2 * mixer.key_heads * mixer.key_dim + 2 * mixer.value_heads * mixer.value_dim)
    return 0


def _expert_buffers(mlp: Experts, flags: ServedFlags, hidden: int) -> int:
    """Two buffers: gate and up (or the output, whichever is wider), and their product (fused_moe/modular_kernel.py)."""
    tokens = min(flags.max_num_batched_tokens, CHUNK) * mlp.chosen
    width = mlp.width // (1 if flags.enable_expert_parallel else flags.tensor_parallel_size)
    return tokens * (max(2 * width, hidden) + max(width, hidden)) * flags.dtype_bytes


def _workspace(mlp: object, flags: ServedFlags, model: ModelShape) -> int:
    """What stays allocated of them; the MXFP4 kernels of gpt-oss take none (it logs 2.87 GiB, the sampler's)."""
    mxfp4 = model.quantisation is not None and model.quantisation.method == "mxfp4"
    return _expert_buffers(mlp, flags, model.hidden_size) if isinstance(mlp, Experts) and not mxfp4 else 0


def _masked_scores(model: ModelShape, flags: ServedFlags) -> int:
    """V0 ran Gemma 3 with images in plain attention: scores and their masked copy, heads × T² × 8 bytes (gemma3.py
    naive_attn_with_masks): 2.87 GiB logged for 4096 tokens, 10.32 for 8192.
    """
    heads = max((mixer.heads for mixer in model.attentions if isinstance(mixer, Attention)), default=0)
    plain = model.model_type.startswith("gemma3") and model.multimodal
    return heads // flags.tensor_parallel_size * flags.max_num_batched_tokens**2 * 8 if plain else 0


def _latent_workspace(model: ModelShape, flags: ServedFlags) -> int:
    latent = next((mixer for mixer in model.attentions if isinstance(mixer, Latent)), None)
    if latent is None:
        return 0
    tokens = min(max(8 * flags.max_model_len, 4 * flags.max_num_seqs * 16), LATENT_WORKSPACE_TOKENS)
    return tokens * (latent.kv_rank + latent.rope_dim) * flags.dtype_bytes
