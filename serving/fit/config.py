"""config.json of a dense decoder-only model as a ModelShape. Pure.

Modelled: the Llama layout with MHA or GQA in full attention (FAMILIES). Anything else is refused by name of its field,
because a layout that is not modelled must never get a verdict: mixture of experts, latent attention (MLA),
sliding-window and hybrid layers, quantised weights, encoders, and repositories that bring their own code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serving.fit.strict_json import is_int, shown

# architecture → does vLLM also give embed_tokens and lm_head LoRA slots? (`embedding_modules` of the class in
# vllm/model_executor/models/*.py, 0.32.0)
FAMILIES: Mapping[str, bool] = {
    "LlamaForCausalLM": True,
    "MistralForCausalLM": False,
    "Qwen2ForCausalLM": False,
    "Qwen3ForCausalLM": True,
    "GraniteForCausalLM": True,
}
MAX_VALUE = 2**31 - 1
ROPE_TYPES = ("default", "llama3")  # the ones that leave max_position_embeddings as it is written
DTYPES = ("bfloat16", "float16", "float32")
UNMODELLED = (
    "auto_map",
    "quantization_config",
    "compression_config",
    "quantization",
    "text_config",
    "vision_config",
    "audio_config",
    "is_encoder_decoder",
    "kv_lora_rank",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_intermediate_size",
    "num_kv_shared_layers",
    "attention_chunk_size",
    "dual_chunk_attention_config",
)


class ConfigInvalid(Exception):
    """config.json is missing, is not JSON, or lacks a field that every dense decoder has."""


class UnsupportedModel(Exception):
    """The model is of a kind whose memory is not modelled, so no verdict is given."""


@dataclass(frozen=True)
class ModelShape:
    """The numbers of config.json that decide memory, under its own names."""

    architecture: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str  # of the checkpoint as the config declares it; float32 when it does not

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the keys of one token in one layer; the values have the same."""
        return self.num_key_value_heads * self.head_dim

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each matrix of one layer."""
        hidden, inner, query, kv = self.hidden_size, self.intermediate_size, self.query_size, self.key_value_size
        return {
            "self_attn.q_proj": (hidden, query),
            "self_attn.k_proj": (hidden, kv),
            "self_attn.v_proj": (hidden, kv),
            "self_attn.o_proj": (query, hidden),
            "mlp.gate_proj": (hidden, inner),
            "mlp.up_proj": (hidden, inner),
            "mlp.down_proj": (inner, hidden),
        }

    @property
    def lora_on_embeddings(self) -> bool:
        return FAMILIES[self.architecture]


def parse_config(config: Mapping[str, object]) -> ModelShape:
    """Raises ConfigInvalid, UnsupportedModel."""
    architecture = _architecture(config)
    _refuse_unmodelled(config)
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    kv_heads = _size(config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ConfigInvalid(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}. Fix config.json."
        )
    if config.get("head_dim") is None and hidden % heads:
        raise ConfigInvalid(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is absent. "
            "Fix config.json."
        )
    return ModelShape(
        architecture=architecture,
        num_hidden_layers=_size(config, "num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=_size(config, "head_dim", default=hidden // heads),
        vocab_size=_size(config, "vocab_size"),
        max_position_embeddings=_size(config, "max_position_embeddings"),
        tie_word_embeddings=_flag(config, "tie_word_embeddings"),
        dtype=_dtype(config),
    )


def _architecture(config: Mapping[str, object]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigInvalid(
            "config.json has no list `architectures`; vLLM chooses the model class by it. "
            "Add it as the base model has it."
        )
    if len(names) > 1 or names[0] not in FAMILIES:
        _refuse("architectures", ", ".join(names), f"one of {', '.join(FAMILIES)}")
    return str(names[0])


def _refuse_unmodelled(config: Mapping[str, object]) -> None:
    for field in UNMODELLED:
        if config.get(field):
            _refuse(field, config[field], "absent")
    layers = config.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or any(kind != "full_attention" for kind in layers)):
        _refuse("layer_types", layers, "full_attention in every layer")
    if config.get("sliding_window") is not None and config.get("use_sliding_window") is not False:
        _refuse("sliding_window", config["sliding_window"], "null, or use_sliding_window false")
    for field in ("rope_scaling", "rope_parameters"):
        _refuse_rope(field, config.get(field))


def _refuse_rope(field: str, rope: object) -> None:
    if rope is None:
        return
    if not isinstance(rope, dict):
        raise ConfigInvalid(f"{field} is {shown(rope)}, an object or null is required. Fix config.json.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        _refuse(field, kind, f"rope type {' or '.join(ROPE_TYPES)}")


def _refuse(field: str, found: object, required: str) -> None:
    raise UnsupportedModel(
        f"{field} is {shown(found)} in config.json; the fit estimate models only {required}. "
        "Serve a dense, unquantised model of a known family, or measure this one on the GPU."
    )


def _size(config: Mapping[str, object], field: str, default: int | None = None) -> int:
    value = config.get(field)
    if value is None and default is not None:
        return default
    if not is_int(value) or not 0 < value <= MAX_VALUE:
        raise ConfigInvalid(
            f"{field} is {shown(value)} in config.json, an integer from 1 to {MAX_VALUE} is required. Fix config.json."
        )
    return value


def _flag(config: Mapping[str, object], field: str) -> bool:
    value = config.get(field, False)
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{field} is {shown(value)} in config.json, true or false is required. Fix config.json.")
    return value


def _dtype(config: Mapping[str, object]) -> str:
    """transformers 5 writes `dtype`, older ones `torch_dtype`."""
    value = config.get("dtype") or config.get("torch_dtype") or "float32"
    if value not in DTYPES:
        _refuse("dtype", value, " or ".join(DTYPES))
    return str(value)
