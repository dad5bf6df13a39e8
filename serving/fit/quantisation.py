"""Quantised weights: which method a checkpoint uses and how many bits one weight takes with its scales. Pure.

Sources: vllm/model_executor/layers/quantization/*.py (create_weights of each method) and the formats' own descriptions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving.fit.strict_json import is_int, shown

GROUP = 128  # group size of AWQ and GPTQ checkpoints that do not say


class UnsupportedQuantisation(Exception):
    """The method or its width is not modelled."""


@dataclass(frozen=True)
class Quantisation:
    method: str  # vLLM's word: awq, gptq, fp8, compressed-tensors, bitsandbytes, mxfp4, modelopt_fp4, gguf
    bits: float  # of one weight, with the scales and zero points of its group
    row_bytes: int = 0  # for each output row: a per-channel scale
    capability: tuple[int, int] = (7, 0)  # the least that vLLM serves it on
    skipped: tuple[str, ...] = ()  # modules left in 16 bits, as the checkpoint names them
    stated: bool = True  # False: taken from the model's name or a flag
    embeddings: bool = False  # the embedding and the head are quantised too (GGUF)
    experts_only: bool = False
    runtime: bool = False  # a 16-bit checkpoint quantised while it loads
    expert_bits: float | None = None  # of the experts, where they differ (DeepSeek-V4)
    fp8_cache: bool = False  # the checkpoint has scales for an fp8 KV cache, which vLLM then uses by itself

    def skips(self, module: str) -> bool:
        """`module` is a dotted path without layer number, e.g. model.layers.*.self_attn.q_proj."""
        return any(_matches(pattern, module) for pattern in self.skipped)


FP8 = Quantisation("fp8", 8, row_bytes=4, capability=(7, 5))
AWQ = Quantisation("awq", 4 + (16 + 4) / GROUP, capability=(7, 5))
GPTQ = Quantisation("gptq", 4 + 16 / GROUP, capability=(6, 0))
INT8 = Quantisation("compressed-tensors", 8, row_bytes=4, capability=(7, 5))
INT4 = Quantisation("compressed-tensors", 4 + 16 / GROUP, capability=(7, 5))
# NF4: 64 weights share an 8-bit scale, 256 of those a float32 one (double quantisation, arXiv 2305.14314): phi-4 logs
# 8.63 GiB, Llama-3.1-8B 5.35.
BITSANDBYTES = Quantisation("bitsandbytes", 4 + 8 / 64 + 32 / (64 * 256), capability=(7, 0))
# OCP Microscaling: 32 weights share an 8-bit exponent. Only the experts of gpt-oss are in it.
MXFP4 = Quantisation("mxfp4", 4.25, capability=(7, 5), experts_only=True)
# NVFP4: 16 weights share an fp8 scale.
NVFP4 = Quantisation("modelopt_fp4", 4.5, capability=(7, 5))
GGUF_Q8 = Quantisation("gguf", 8.5, capability=(6, 0), embeddings=True)
GGUF_Q4 = Quantisation("gguf", 4.85, capability=(6, 0), embeddings=True)

# Words of flags, model names and descriptions, tried in this order; the first that occurs decides.
WORDS: tuple[tuple[str, Quantisation], ...] = (
    (r"mxfp4", MXFP4),
    (r"nvfp4|modelopt_fp4|fp4", NVFP4),
    (r"bnb|bitsandbytes|nf4", BITSANDBYTES),
    (r"gguf.*q8|q8_0", GGUF_Q8),
    (r"gguf|q4_k", GGUF_Q4),
    (r"awq", AWQ),
    (r"gptq.*int8|gptq_8bit", Quantisation("gptq", 8 + 16 / GROUP, capability=(6, 0))),
    (r"gptq", GPTQ),
    (r"w8a8|w8a16|int8|experts_int8", INT8),
    (r"fp8|^modelopt$", FP8),
    (r"w4a16|w4a8|wna16|int4|autoround|auto-round|4-?bit", INT4),
    (r"compressed-tensors", INT4),
)
UNQUANTISED = re.compile(r"^(|none|null|auto|bf16|bfloat16|fp16|float16|half|fp32|float32|16-?bit|unstated.*)$")


def by_word(text: str | None) -> Quantisation | None:
    """What a flag or a model's name says; None where it says nothing of the kind. Never an error for a name."""
    lowered = (text or "").strip().lower()
    if UNQUANTISED.match(lowered):
        return None
    for pattern, found in WORDS:
        if re.search(pattern, lowered):
            runtime = bool(re.search(r"runtime|online", lowered)) or lowered in ("fp8", "bitsandbytes", "experts_int8")
            return replace(found, stated=False, runtime=runtime)
    return None


def by_flag(text: str | None) -> Quantisation | None:
    """--quantization. Raises UnsupportedQuantisation for a word that is no method known here."""
    found = by_word(text)
    if found is None and text and not UNQUANTISED.match(text.strip().lower()):
        raise UnsupportedQuantisation(
            f"quantization is {text[:40]!r}; modelled: awq, gptq, fp8, bitsandbytes, compressed-tensors, mxfp4, "
            "modelopt_fp4, gguf. Use one of them, or measure this one on the GPU."
        )
    return found


def by_config(config: object) -> Quantisation | None:
    """quantization_config or compression_config of config.json. Raises UnsupportedQuantisation."""
    if config is None or config == {}:
        return None
    if not isinstance(config, Mapping):
        raise _unsupported("quantization_config", shown(config), "an object")
    scheme = config.get("kv_cache_scheme")
    fp8_cache = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8
    return replace(_by_method(config), fp8_cache=fp8_cache or config.get("kv_cache_quant_algo") == "FP8")


def _by_method(config: Mapping[str, object]) -> Quantisation:
    method = str(config.get("quant_method") or config.get("quant_algo") or "").lower()
    skipped = _skipped(config)
    if method in ("awq", "gptq", "auto-round", "auto_round", "awq_marlin", "gptq_marlin", "intel/auto-round"):
        return _grouped(method, config, skipped)
    if method in ("compressed-tensors", "compressed_tensors", "sparseml"):
        return _compressed(config, skipped)
    if method in ("bitsandbytes", "bnb"):
        bits = 8.0 if config.get("load_in_8bit") else BITSANDBYTES.bits
        return replace(BITSANDBYTES, bits=bits, skipped=skipped)
    named = {"fp8": FP8, "fbgemm_fp8": FP8, "mxfp4": MXFP4, "gpt_oss_mxfp4": MXFP4, "modelopt": FP8, "gguf": GGUF_Q8}
    if "fp4" in str(config.get("quant_algo", "")).lower() or method in ("modelopt_fp4", "nvfp4"):
        return replace(NVFP4, skipped=skipped)
    if method not in named:
        raise _unsupported("quant_method", repr(method[:40]), "awq, gptq, fp8, bitsandbytes, compressed-tensors, mxfp4")
    block = config.get("weight_block_size")
    found = named[method]
    if found is FP8 and isinstance(block, list) and len(block) == 2 and all(is_int(n) and 0 < n < 2**20 for n in block):
        found = Quantisation("fp8", 8 + 32 / (block[0] * block[1]), capability=FP8.capability)
    return replace(found, skipped=skipped)


def _grouped(method: str, config: Mapping[str, object], skipped: tuple[str, ...]) -> Quantisation:
    """AWQ keeps zero points; symmetric GPTQ's are dropped when it is repacked for Marlin."""
    bits, group = (
        config.get("bits", config.get("w_bit", 4)),
        config.get("group_size", config.get("q_group_size", GROUP)),
    )
    if not is_int(bits) or bits not in (2, 3, 4, 8) or not is_int(group) or not (group == -1 or 0 < group <= 2**20):
        raise _unsupported("bits and group_size", f"{shown(bits)} and {shown(group)}", "2, 3, 4 or 8 bits by groups")
    awq = "awq" in method
    scale = (16 + (bits if awq else 0)) / group if group > 0 else 0.0
    return Quantisation(
        "awq" if awq else "gptq",
        bits + scale,
        row_bytes=2 if group < 0 else 0,
        capability=AWQ.capability if awq else GPTQ.capability,
        skipped=skipped,
    )


def _compressed(config: Mapping[str, object], skipped: tuple[str, ...]) -> Quantisation:
    """compressed-tensors: the widest of its groups; weights of 4 or 8 bits, integer or float, by channel or group."""
    groups = config.get("config_groups")
    found = [
        group["weights"]
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping)
    ]
    sizes = [(weights.get("num_bits", 8), weights.get("group_size")) for weights in found] or [(8, None)]
    if not all(is_int(bits) and bits in (2, 3, 4, 6, 8) for bits, _ in sizes):
        raise _unsupported("num_bits", shown(sizes[0][0]), "2 to 8")
    bits, group = max(sizes, key=lambda size: int(size[0]))
    if not is_int(group) or not 0 < group <= 2**20:
        return Quantisation("compressed-tensors", bits, row_bytes=4, capability=(7, 5), skipped=skipped)
    scale = 8 if group <= 16 else 16
    return Quantisation("compressed-tensors", bits + scale / group, capability=(7, 5), skipped=skipped)


def _skipped(config: Mapping[str, object]) -> tuple[str, ...]:
    names = [config.get(field) for field in ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules")]
    nested = config.get("llm_int8_skip_modules")
    found = [name for part in (*names, nested) if isinstance(part, list) for name in part if isinstance(name, str)]
    return tuple(dict.fromkeys(name[:200] for name in found if name))


def _matches(pattern: str, module: str) -> bool:
    """A full name, a part of it between dots, a glob with *, or re: and a simple expression, each by any layer number.

    A list that names single layers counts for all of them; such lists name every layer in practice. Expressions are not
    compiled, since they come from the checkpoint: their literal parts have to occur in order.
    """
    text = pattern.removeprefix("re:").replace("\\", "").replace(".*", "*").rstrip("$").lstrip("^")
    text = re.sub(r"\.\d+(?=\.|$)", ".*", text.replace("language_model.", "").replace("model.model.", "model."))
    open_end = text.endswith("*")
    parts = [part for part in text.split("*") if part.strip(".")]
    position = 0
    for part in parts:
        found = module.find(part.strip("."), position)
        if found < 0:
            return False
        position = found + len(part.strip("."))
    return bool(parts) and (open_end or module[position : position + 1] in ("", "."))


def _unsupported(field: str, found: str, required: str) -> UnsupportedQuantisation:
    return UnsupportedQuantisation(
        f"{field} is {found} in config.json; modelled: {required}. Serve another checkpoint, or measure this one."
    )
