"""Model folders, adapters and measured points for the fit tests, made without the code under test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from serving.fit.catalogue import Gpu, Machine
from serving.fit.config import parse_config
from serving.fit.safetensors_header import Tensor
from serving.fit.shapes import ModelShape

DATA = Path(__file__).with_name("data")
SMOLLM2 = Path(__file__).parents[1] / ".toolchain/models/SmolLM2-135M-Instruct"
GIB = 1024**3
Config = dict[str, Any]

TINY: Config = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float32",
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 64,
}
SMOLLM2_CONFIG = TINY | {
    "dtype": "bfloat16",
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
LLAMA_8B = TINY | {
    "dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
QWEN25_05B = TINY | {
    "architectures": ["Qwen2ForCausalLM"],
    "dtype": "bfloat16",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def shape_of(config: Config) -> ModelShape:
    return parse_config(config)


def dense_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor that the transformers library saves for such a config, by the layout of its Llama-like classes."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    query, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (query, hidden),
            f"{layer}.self_attn.k_proj.weight": (kv, hidden),
            f"{layer}.self_attn.v_proj.weight": (kv, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, query),
            f"{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"{layer}.mlp.up_proj.weight": (inner, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inner),
        }
        if config["architectures"] == ["Qwen2ForCausalLM"]:
            shapes |= {
                f"{layer}.self_attn.{name}_proj.bias": (size,)
                for name, size in zip("qkv", (query, kv, kv), strict=True)
            }
        if config["architectures"] == ["Qwen3ForCausalLM"]:
            shapes |= {f"{layer}.self_attn.{name}_norm.weight": (head_dim,) for name in "qk"}
    return shapes


def bf16_tensors(config: Config) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, "BF16", size, 2 * int(np.prod(size))) for name, size in dense_shapes(config).items())


def write_model(folder: Path, config: Config = TINY, shards: int = 1) -> Path:
    """A model folder written by the safetensors library, float32, in one file or in shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: np.zeros(size, dtype=np.float32) for name, size in dense_shapes(config).items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names = sorted(tensors)
    files = {name: f"model-{position % shards:05}-of-{shards:05}.safetensors" for position, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


def write_adapter(folder: Path, config: Config = TINY, r: int = 4, base: str = "org/base", **fields: object) -> Path:
    """A PEFT adapter on q_proj and down_proj of every layer."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": r, "base_model_name_or_path": base, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings | fields))
    tensors = {}
    for name, (out, width) in adapted(config).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.zeros((r, width), dtype=np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.zeros((out, r), dtype=np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def adapted(config: Config) -> dict[str, tuple[int, int]]:
    """Module → (out, in) of q_proj and down_proj."""
    matrices = dense_shapes(config)
    chosen = [name for name in matrices if name.endswith(("q_proj.weight", "down_proj.weight"))]
    return {name.removesuffix(".weight"): (matrices[name][0], matrices[name][1]) for name in chosen}


def roomy_gpu(memory_gib: float, capability: tuple[int, int] = (9, 0)) -> Gpu:
    """A card in a machine that is never the limit."""
    machine = Machine("test", 64, 2**44, 2**44, 2**50, gpus=64)
    return Gpu(f"test-{memory_gib:g}gib", int(memory_gib * GIB), capability, (machine,))
