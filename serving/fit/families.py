"""What sets the model families apart that config.json does not say, one row for each model_type. Pure.

Sources: vllm/model_executor/models/*.py (0.32.0) and the defaults of transformers' configuration classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["dense", "moe", "mla", "delta", "gemma4", "deepseek4", "nemotron"]


@dataclass(frozen=True)
class Family:
    kind: Kind = "dense"
    tied: bool = False  # tie_word_embeddings where config.json does not say
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "head", "width"] = "none"
    norms: int = 2  # vectors of hidden_size in a layer
    gated: bool = True
    mlp_bias: bool = False
    sinks: bool = False
    pattern: int = 0  # every n-th layer attends to everything, the others to a window; 0: all alike
    first_sliding: bool = True  # of a pattern of 2
    head_dim: int | None = None
    learned_positions: int = 0  # rows beyond max_position_embeddings; positions are a table then (OPT)
    lora_on_embeddings: bool = False  # embedding_modules of vLLM's class
    unsure: float = 0.0  # share of the weights


PLAIN = Family()
EMBEDDING_LORA = Family(lora_on_embeddings=True)
GEMMA3 = Family(tied=True, norms=4, qk_norm="head", pattern=6, head_dim=256)
DEEPSEEK = Family("mla")
DELTA = Family("delta", qk_norm="head")

FAMILIES: Mapping[str, Family] = {
    "llama": EMBEDDING_LORA,
    "mistral": PLAIN,
    "ministral": PLAIN,
    "ministral3": PLAIN,
    "smollm3": Family(tied=True),
    "internlm2": PLAIN,
    "internlm3": PLAIN,
    "minicpm": Family(tied=True),
    "ernie4_5": Family(tied=True),
    "granite": Family(tied=True, lora_on_embeddings=True),
    "qwen2": Family(qkv_bias=True),
    "qwen2_vl": Family(qkv_bias=True),
    "qwen2_vl_text": Family(qkv_bias=True),
    "qwen2_5_vl": Family(qkv_bias=True),
    "qwen2_5_vl_text": Family(qkv_bias=True),
    "qwen3": Family(qk_norm="head", lora_on_embeddings=True),
    "qwen3_vl_text": Family(qk_norm="head"),
    "seed_oss": Family(qkv_bias=True),
    "qwen": Family(qkv_bias=True),
    "gemma": Family(tied=True, head_dim=256),
    "gemma2": Family(tied=True, norms=4, pattern=2, head_dim=256),
    "gemma3_text": GEMMA3,
    "gemma3": GEMMA3,
    "phi3": PLAIN,
    "phi3_v": PLAIN,
    "phi": Family(qkv_bias=True, output_bias=True, norms=2, gated=False, mlp_bias=True),
    "phi-msft": Family(qkv_bias=True, output_bias=True, norms=2, gated=False, mlp_bias=True),
    "olmo2": Family(qk_norm="width"),
    "olmo3": Family(qk_norm="width", pattern=4),
    "cohere": Family(tied=True, norms=1),
    "cohere2": Family(tied=True, norms=1, pattern=4),
    "stablelm": PLAIN,
    "starcoder2": Family(tied=True, qkv_bias=True, output_bias=True, norms=4, gated=False, mlp_bias=True),
    "exaone4": Family(qk_norm="head", pattern=4),
    "glm": Family(qkv_bias=True),
    "glm4": Family(qkv_bias=True, norms=4),
    "opt": Family(tied=True, qkv_bias=True, output_bias=True, norms=4, gated=False, mlp_bias=True, learned_positions=2),
    "falcon": Family(tied=True, norms=4, gated=False),
    "gpt_neox": Family(qkv_bias=True, output_bias=True, norms=4, gated=False, mlp_bias=True),
    "mixtral": Family("moe"),
    "qwen2_moe": Family("moe", qkv_bias=True),
    "qwen3_moe": Family("moe", qk_norm="head"),
    "qwen3_vl_moe_text": Family("moe", qk_norm="head"),
    "olmoe": Family("moe", qk_norm="width"),
    "granitemoe": Family("moe", tied=True),
    "minimax_m2": Family("moe", qk_norm="width"),
    "glm4_moe": Family("moe", qkv_bias=True),
    "gpt_oss": Family("moe", qkv_bias=True, output_bias=True, mlp_bias=True, sinks=True, pattern=2),
    "llama4_text": Family("moe"),
    "llama4": Family("moe"),
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": DEEPSEEK,
    "kimi_k2": DEEPSEEK,
    "glm4_moe_lite": DEEPSEEK,
    "deepseek_v4": Family("deepseek4", unsure=0.05),
    "qwen3_next": DELTA,
    "qwen3_5": DELTA,
    "qwen3_5_text": DELTA,
    "qwen3_5_moe": DELTA,
    "qwen3_5_moe_text": DELTA,
    "qwen4_exp_text": Family("delta", qk_norm="head", unsure=0.15),
    "gemma4_text": Family("gemma4", tied=True, norms=4, qk_norm="head"),
    "gemma4": Family("gemma4", tied=True, norms=4, qk_norm="head"),
    "nemotron_h": Family("nemotron", norms=1),
    "mllama_text_model": PLAIN,
}

# architectures → model_type, where config.json gives only the class
BY_CLASS: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GraniteForCausalLM": "granite",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Phi3ForCausalLM": "phi3",
    "MixtralForCausalLM": "mixtral",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "GptOssForCausalLM": "gpt_oss",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "Glm4MoeForCausalLM": "glm4_moe",
    "OPTForCausalLM": "opt",
    "FalconForCausalLM": "falcon",
}
# model_type of a whole whose language model is in a part of its own → what that part is, when it does not say
WHOLES: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "mistral3": "mistral",
    "llava": "llama",
    "llava_next": "llama",
    "pixtral": "mistral",
    "internvl_chat": "qwen2",
    "internvl": "qwen2",
    "mllama": "mllama_text_model",
    "kimi_vl": "deepseek_v3",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "llama4": "llama4_text",
}
# Published with code of their own before vLLM and transformers had a class; vLLM runs its own class of the same name.
FORMERLY_OWN_CODE = (
    "phi", "phi-msft", "phi3", "phi3_v", "qwen", "deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_vl",
    "internvl_chat", "falcon", "internlm2", "internlm3", "minicpm", "nemotron_h", "minimax_m2", "ernie4_5",
)  # fmt: skip
