"""The rival estimators on the points that bench_fit.py sends: one JSON document in, one out. Never imported by tests.

Run with the rivals on PYTHONPATH. Each gets what it would read itself: config.json, and the parameters by dtype of the
safetensors headers; the network is not used. Where a tool gives no verdict (hf-mem, accelerate), its sum is held
against memory × utilization, as its users do. An error of a tool is no answer, and says why.
"""

import json
import sys
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

GIB = 1024**3
Answer = dict[str, Any]
STORED = {"BF16": 2, "I32": 4, "F8_E4M3": 1, "I8": 1, "U8": 1}


def llm_d_planner(point: dict[str, Any]) -> Answer:
    """planner.capacity_planner: weights, what is left for the KV cache, and one request's need."""
    from planner import capacity_planner as planner

    counts = point["parameters"]
    planner.model_params_by_dtype = lambda *_: counts  # else read from the hub
    config, ways = _view(point["config"]), point["ways"]
    weights = planner.model_memory_req(point["model"], config) / ways
    left = planner.allocatable_kv_cache_memory(
        point["model"], config, point["gib"], point["utilization"], tp=point["tp"], pp=point["pp"], dp=point["dp"]
    )
    need = planner.KVCacheDetail(point["model"], config, point["length"]).per_request_kv_cache_gb
    return {"weights": weights, "kv": left / ways / point["dp"], "fits": left > need}


def hf_mem(point: dict[str, Any]) -> Answer:
    """hf_mem: bytes of the headers, and the KV cache of one request (--experimental)."""
    from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

    weights = sum(number * STORED[dtype] for dtype, number in point["parameters"].items()) / GIB
    text = _text(point["config"])
    need = compute_safetensors_kv_cache_size(text, "BF16", point["length"]) / GIB
    return _by_sum(point, weights, need)


def accelerate(point: dict[str, Any]) -> Answer:
    """accelerate estimate-memory: parameters on the meta device × bytes, and 20 % for inference, as its page says."""
    weights = _meta_parameters(json.dumps(point["config"])) * 2 / GIB
    return _by_sum(point, weights, 0.2 * weights, 0.2 * weights)


def kaito(point: dict[str, Any]) -> Answer:
    """KAITO's published formula (website/docs/memory-estimator.md): file size × 1.02, 2.3 GiB + 5 % of the share a GPU
    has, and the KV cache of one request; the utilization is the point's instead of its own 0.84.
    """
    share = 1.02 * sum(number * STORED[dtype] for dtype, number in point["parameters"].items()) / GIB / point["ways"]
    text = _text(point["config"])
    heads = text.get("num_attention_heads") or text["n_head"]
    dim = text.get("head_dim") or (text.get("hidden_size") or text["n_embd"]) // heads
    width = 2 * (text.get("num_key_value_heads") or heads) * dim
    if "kv_lora_rank" in text:
        width = text["kv_lora_rank"] + text["qk_rope_head_dim"]
    layers = text.get("num_hidden_layers") or text["n_layer"]
    need = layers * width * 2 * point["length"] / GIB / point["ways"]
    left = point["gib"] * point["utilization"] - share - 2.3 - 0.05 * share
    return {"weights": share, "kv": max(left, 0), "fits": left > need}


def _by_sum(point: dict[str, Any], weights: float, need: float, beside: float = 0.0) -> Answer:
    usable, ways = point["gib"] * point["utilization"], point["ways"]
    left = usable - (weights + beside) / ways
    return {"weights": weights / ways, "kv": max(left, 0), "fits": usable > (weights + need) / ways}


def _text(config: dict[str, Any]) -> dict[str, Any]:
    return next((config[key] for key in ("text_config", "llm_config") if key in config), config)


def _view(config: dict[str, Any]) -> Any:
    """config.json with attributes, as transformers gives it."""
    fields = {
        key: _view(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
    }
    if isinstance(fields.get("quantization_config"), SimpleNamespace):
        fields["quantization_config"] = config["quantization_config"]
    fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    return SimpleNamespace(**fields)


@lru_cache(maxsize=256)
def _meta_parameters(text: str) -> int:
    import torch
    import transformers

    config = json.loads(text)
    config.pop("quantization_config", None)
    config.pop("auto_map", None)
    kind = config.pop("model_type")
    made = transformers.AutoConfig.for_model(kind, **config)
    from accelerate import init_empty_weights

    with init_empty_weights():
        for chooser in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
            if type(made) in chooser._model_mapping:
                model: torch.nn.Module = chooser.from_config(made)
                return sum(parameter.numel() for parameter in model.parameters())
    raise ValueError(f"transformers has no model for {kind}")


PEERS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "llm-d-planner": llm_d_planner,
    "hf-mem": hf_mem,
    "accelerate": accelerate,
    "KAITO's formula": kaito,
}


def ask(peer: Callable[[dict[str, Any]], Answer], point: dict[str, Any]) -> Answer:
    """What the tool says, or how it failed."""
    try:
        return peer(point)
    except (
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        return {"error": f"{type(error).__name__}: {str(error)[:100]}"}


if __name__ == "__main__":
    points = json.load(sys.stdin)
    answers = {name: [ask(peer, point) for point in points] for name, peer in PEERS.items()}
    json.dump(answers, sys.stdout)
