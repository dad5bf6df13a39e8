"""The layers of a language model from the fields of its config.json, by family. Pure."""

from serving.fit.families import Family
from serving.fit.fields import MAX_LAYERS, Config, count, flag, integers, invalid, section, size, unsupported, words
from serving.fit.shapes import Attention, Compressed, Dense, Experts, Latent, Layer, Mixer, Mlp, Recurrent
from serving.fit.strict_json import is_int, shown


def build_layers(text: Config, family: Family, kind: str) -> tuple[Layer, ...]:
    """Raises ConfigInvalid, UnsupportedModel."""
    if family.kind == "nemotron":
        return _nemotron(text, family)
    total = size(text, "num_hidden_layers", "n_layer", "num_layers", most=MAX_LAYERS)
    if family.kind == "gemma4":
        return _gemma4(text, family, total)
    types = _types(text, family, total)
    return tuple(
        Layer(_mixer(text, family, types[index], index), _mlp(text, family, kind, index), family.norms)
        for index in range(total)
    )


def rotary_dim(text: Config, layers: tuple[Layer, ...]) -> int:
    """Width of the cached cosines and sines; they are buffers of the model and count as weights."""
    for layer in layers:
        if isinstance(layer.mixer, Latent):
            return layer.mixer.rope_dim
        if isinstance(layer.mixer, Attention):
            rope = section(text, "rope_parameters") or {}
            share = text.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise invalid("partial_rotary_factor", shown(share), "a number above 0 and at most 1")
            return int(layer.mixer.head_dim * share)
    return 0


def extra_parameters(text: Config, family: Family, kind: str) -> int:
    """Learned positions; per-layer embeddings and their projections (Gemma 4, gemma4.py); a head's bias (Phi)."""
    hidden = size(text, "hidden_size", "n_embd", "d_model")
    if family.learned_positions:
        return (size(text, "max_position_embeddings") + family.learned_positions) * hidden
    if kind in ("phi", "phi-msft"):
        return size(text, "vocab_size") + 2 * hidden
    per_layer = count(text, "hidden_size_per_layer_input") if family.kind == "gemma4" else 0
    if not per_layer:
        return 0
    layers, vocabulary = size(text, "num_hidden_layers"), size(text, "vocab_size_per_layer_input", "vocab_size")
    return vocabulary * layers * per_layer + 3 * layers * per_layer * hidden


def _types(text: Config, family: Family, total: int) -> tuple[str, ...]:
    """What each layer attends to: layer_types, or the family's pattern, or a window for all."""
    given = words(text, "layer_types")
    if given is not None:
        if len(given) != total:
            raise invalid("layer_types", f"{len(given)} words", f"{total}, one a layer")
        return given
    if family.kind == "delta":
        every = size(text, "full_attention_interval", default=4)
        return tuple("linear_attention" if (index + 1) % every else "full_attention" for index in range(total))
    window = text.get("sliding_window")
    if window is None or text.get("use_sliding_window") is False:
        return ("full_attention",) * total
    pattern = size(text, "sliding_window_pattern", "_sliding_window_pattern", default=family.pattern or MAX_LAYERS)
    if not family.pattern and "sliding_window_pattern" not in text:
        return ("sliding_attention",) * total
    return tuple("sliding_attention" if (index + 1) % pattern else "full_attention" for index in range(total))


def _mixer(text: Config, family: Family, word: str, index: int) -> Mixer:
    if family.kind == "deepseek4":
        return _compressed(text, index)
    if family.kind == "mla":
        return _latent(text)
    if word == "linear_attention":
        return _delta(text)
    if word not in ("full_attention", "sliding_attention", "chunked_attention"):
        raise unsupported("layer_types", repr(word[:40]), "full, sliding, chunked and linear attention")
    # Llama 4's chunked layers keep every token: vLLM turns the hybrid manager off for them (vllm/config/vllm.py).
    window = size(text, "sliding_window") if word == "sliding_attention" else None
    return attention(text, family, window)


def attention(text: Config, family: Family, window: int | None) -> Attention:
    hidden, heads = (
        size(text, "hidden_size", "n_embd", "d_model"),
        size(text, "num_attention_heads", "n_head", default=8),
    )
    kv_heads = _kv_heads(text, heads)
    if heads % kv_heads:
        raise invalid("num_key_value_heads", str(kv_heads), f"a divisor of num_attention_heads {heads}")
    if hidden % heads and not (family.head_dim or text.get("head_dim") or text.get("kv_channels")):
        raise invalid("hidden_size", str(hidden), f"a multiple of the {heads} heads, or a head_dim")
    default = family.head_dim or hidden // heads
    head_dim = size(text, "head_dim", "kv_channels", default=default)
    norm = {"none": 0, "head": 2 * head_dim, "width": (heads + kv_heads) * head_dim}[family.qk_norm]
    if flag(text, "use_qk_norm") and not norm:
        norm = 2 * head_dim
    return Attention(
        heads,
        kv_heads,
        head_dim,
        window,
        qkv_bias=family.qkv_bias or flag(text, "attention_bias"),
        output_bias=family.output_bias,
        qk_norm=norm,
        gated=family.kind == "delta" and flag(text, "attn_output_gate", True),
        sinks=family.sinks,
    )


def _kv_heads(text: Config, heads: int) -> int:
    """Falcon's first layout has one key head; its second and everyone else say how many."""
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is False:
        return 1
    return size(text, "num_key_value_heads", "n_head_kv", "num_kv_heads", default=heads)


def _latent(text: Config) -> Latent:
    return Latent(
        size(text, "num_attention_heads"),
        count(text, "q_lora_rank") or None,
        size(text, "kv_lora_rank"),
        size(text, "qk_nope_head_dim"),
        size(text, "qk_rope_head_dim"),
        size(text, "v_head_dim"),
        count(text, "index_n_heads"),
        count(text, "index_head_dim"),
    )


def _compressed(text: Config, index: int) -> Compressed:
    ratios = integers(text, "compress_ratios") or ()
    return Compressed(
        size(text, "num_attention_heads"),
        size(text, "head_dim"),
        size(text, "qk_rope_head_dim"),
        size(text, "q_lora_rank"),
        size(text, "o_lora_rank"),
        size(text, "o_groups"),
        size(text, "sliding_window"),
        ratios[index] if index < len(ratios) else 0,
        size(text, "index_n_heads"),
        size(text, "index_head_dim"),
    )


def _delta(text: Config) -> Recurrent:
    return Recurrent(
        "delta",
        size(text, "linear_num_key_heads"),
        size(text, "linear_key_head_dim"),
        size(text, "linear_num_value_heads"),
        size(text, "linear_value_head_dim"),
        size(text, "linear_conv_kernel_dim"),
        text.get("mamba_ssm_dtype", "auto") == "float32",
    )


def _mlp(text: Config, family: Family, kind: str, index: int) -> Mlp:
    hidden = size(text, "hidden_size", "n_embd", "d_model")
    chosen = count(text, "num_experts_per_tok", "experts_per_token", "moe_topk", "top_k_experts")
    experts = count(text, "num_experts", "num_local_experts", "n_routed_experts")
    bias = family.mlp_bias or flag(text, "mlp_bias")
    if not experts or family.kind == "dense":
        width = size(text, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", default=4 * hidden)
        return Dense(width // 2 if kind == "qwen" else width, family.gated, bias)
    if _is_dense(text, kind, index):
        return Dense(size(text, "intermediate_size_mlp", "intermediate_size"), bias=bias)
    width = size(text, "moe_intermediate_size", "intermediate_size")
    shared = count(text, "shared_expert_intermediate_size", "shared_intermediate_size")
    if "n_shared_experts" in text:
        shared = count(text, "n_shared_experts") * width
    if kind.startswith("llama4"):
        shared = width
    gate = shared > 0 and kind in ("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp_text")
    return Experts(experts, chosen or 1, width, shared, shared_gate=gate, bias=bias)


def _is_dense(text: Config, kind: str, index: int) -> bool:
    """Layers of a mixture-of-experts model that have one plain MLP."""
    if index < count(text, "first_k_dense_replace", "moe_layer_start_index"):
        return True
    if index in (integers(text, "mlp_only_layers") or ()):
        return True
    if kind.startswith("llama4"):
        return bool((index + 1) % size(text, "interleave_moe_layer_step", default=1))
    return bool((index + 1) % size(text, "decoder_sparse_step", "moe_layer_freq", default=1))


def _gemma4(text: Config, family: Family, total: int) -> tuple[Layer, ...]:
    """vllm/model_executor/models/gemma4.py: global layers have wider heads and may use their keys as values; the last
    num_kv_shared_layers read an earlier layer's cache, with an MLP of twice the width where use_double_wide_mlp is set.
    """
    types = _types(text, family, total)
    first_shared = total - count(text, "num_kv_shared_layers")
    heads, width = size(text, "num_attention_heads"), size(text, "intermediate_size")
    layers = []
    for index, word in enumerate(types):
        sliding, shares = word == "sliding_attention", index >= first_shared
        dim = size(text, "head_dim") if sliding else size(text, "global_head_dim", "head_dim")
        kv = size(text, "num_key_value_heads")
        keys_are_values = not sliding and flag(text, "attention_k_eq_v")
        if keys_are_values:
            kv = size(text, "num_global_key_value_heads", default=kv)
        mixer = Attention(
            heads, kv, dim, size(text, "sliding_window") if sliding else None,
            qk_norm=2 * dim, keys_are_values=keys_are_values, shares_cache=shares,
        )  # fmt: skip
        dense = width * (2 if shares and flag(text, "use_double_wide_mlp") else 1)
        mlp: Mlp = Dense(dense)
        if flag(text, "enable_moe_block"):
            mlp = Experts(
                size(text, "num_experts"), size(text, "top_k_experts", "num_experts_per_tok"),
                size(text, "moe_intermediate_size", "expert_intermediate_size"), beside=dense,
            )  # fmt: skip
        layers.append(Layer(mixer, mlp, 7 if flag(text, "enable_moe_block") else family.norms))
    return tuple(layers)


def _nemotron(text: Config, family: Family) -> tuple[Layer, ...]:
    """Nemotron-H: M a Mamba 2 layer, * attention, - an MLP, E experts, each alone in its layer (nemotron_h.py)."""
    pattern = text.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_LAYERS or set(pattern) - set("M*-E"):
        raise invalid("hybrid_override_pattern", shown(pattern), "a word of M, *, - and E")
    layers = []
    for letter in pattern:
        mixer: Mixer = None
        if letter in "M*":
            mixer = _mamba2(text) if letter == "M" else attention(text, family, None)
        mlp: Mlp = Dense(size(text, "intermediate_size"), gated=False) if letter == "-" else None
        if letter == "E":
            mlp = Experts(
                size(text, "n_routed_experts"), size(text, "num_experts_per_tok"), size(text, "moe_intermediate_size")
            )
        layers.append(Layer(mixer, mlp, family.norms))
    return tuple(layers)


def _mamba2(text: Config) -> Recurrent:
    groups = size(text, "n_groups", "mamba_num_groups")
    heads, dim = size(text, "mamba_num_heads"), size(text, "mamba_head_dim")
    state = size(text, "ssm_state_size")
    kernel = size(text, "conv_kernel", default=4)
    if not is_int(kernel):
        raise invalid("conv_kernel", shown(kernel), "an integer")
    return Recurrent("mamba2", groups, state, heads, dim, kernel, text.get("mamba_ssm_cache_dtype") == "float32")
