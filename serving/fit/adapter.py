"""A PEFT LoRA adapter as an AdapterShape, and whether it belongs to a base model.

Reads adapter_config.json and the header of adapter_model.safetensors, never weights, never pickles. What vLLM refuses
to load (vllm/lora/peft_helper.py, 0.32.0) is refused here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serving.fit.fields import MAX_VALUE
from serving.fit.matrices import lora_sizes
from serving.fit.safetensors_header import HeaderInvalid, Tensor, read_header
from serving.fit.shapes import ModelShape
from serving.fit.strict_json import BadJson, is_int, read_object, shown

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
REFUSED_FIELDS = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
)
MATRIX = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(embedding_)?(?P<side>A|B)(\.weight)?$")
LAYER = re.compile(
    r"^(?:model|language_model|language_model\.model|model\.language_model|backbone)\.layers\.([0-9]{1,6})\.(.+)$"
)

EXPERT = re.compile(r"\.experts\.[0-9]{1,6}\.")


class AdapterRefused(Exception):
    """vLLM would not load this adapter on this base, or its files cannot be trusted."""


@dataclass(frozen=True)
class AdapterShape:
    r: int  # the largest rank of any module
    target_modules: tuple[str, ...]  # last part of the module's name, sorted: down_proj, q_proj, …
    nbytes: int  # of the weights file
    base_model: str  # adapter_config.json's base_model_name_or_path: an id or a path
    tensors: tuple[Tensor, ...]


def read_adapter(folder: Path) -> AdapterShape:
    """Raises AdapterRefused."""
    config = _config(folder)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"pickled weights ({pickles[0]})" if pickles else "no weights"
        raise AdapterRefused(
            f"{folder.name} has {found}; required: {WEIGHTS}. Save the adapter with safe_serialization=True."
        )
    try:
        tensors = read_header(folder / WEIGHTS)
    except HeaderInvalid as error:
        raise AdapterRefused(str(error)) from error
    r = _rank(folder.name, config)
    modules = _modules(folder.name, tensors, r)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise AdapterRefused(
            f"{folder.name} names no base_model_name_or_path; required: the base it was trained on. Add it to {CONFIG}."
        )
    names = tuple(sorted({module.rpartition(".")[2] for module in modules}))
    return AdapterShape(r, names, (folder / WEIGHTS).stat().st_size, base, tensors)


def check_base(adapter: AdapterShape, model: ModelShape, names: Iterable[str]) -> None:
    """The adapter names the base, and each of its matrices has the base's width.

    `names` are ids or paths of the base; the last part counts. Raises AdapterRefused.
    """
    known = {_last_part(name) for name in names}
    if _last_part(adapter.base_model) not in known:
        raise AdapterRefused(
            f"The adapter was trained on {adapter.base_model!r}; the base to serve is {', '.join(sorted(known))}. "
            "Serve it on its own base, or name the base by the id that the adapter has."
        )
    for tensor in adapter.tensors:
        module, side = _part(adapter.base_model, tensor)
        size = _module_size(module, model)
        if size is None or (tensor.shape[1] != size[0] if side == "A" else tensor.shape[0] != size[1]):
            raise AdapterRefused(
                f"{tensor.name[:100]!r} has shape {tensor.shape}; the base's module has (in, out) {size}. "
                "Serve the adapter on the base it was trained on."
            )


def _config(folder: Path) -> Mapping[str, object]:
    try:
        config = read_object(folder / CONFIG)
    except BadJson as error:
        raise AdapterRefused(
            f"{CONFIG} of {folder.name}: {error}; required: PEFT's JSON file. Save the adapter again."
        ) from error
    if config.get("peft_type", "LORA") != "LORA":
        raise AdapterRefused(
            f"{folder.name} is of peft_type {shown(config['peft_type'])}; vLLM serves LORA. Train a LoRA adapter."
        )
    for field in REFUSED_FIELDS:
        if config.get(field):
            raise AdapterRefused(f"{folder.name} sets {field}; vLLM serves plain LoRA only. Train without it.")
    if config.get("bias", "none") != "none":
        raise AdapterRefused(
            f"{folder.name} has bias {shown(config['bias'])}; vLLM serves bias 'none' only. Train without bias."
        )
    return config


def _rank(name: str, config: Mapping[str, object]) -> int:
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [pattern])]
    found = [rank for rank in ranks if is_int(rank) and 0 < rank <= MAX_VALUE]
    if len(found) != len(ranks):
        raise AdapterRefused(
            f"{name} has rank {', '.join(map(shown, ranks[:4]))}; required: positive integers. "
            f"Fix r and rank_pattern in {CONFIG}."
        )
    return max(found)


def _modules(name: str, tensors: tuple[Tensor, ...], r: int) -> set[str]:
    """The modules that are adapted, e.g. model.layers.0.self_attn.q_proj; each has an A and a B."""
    parts = [_part(name, tensor) for tensor in tensors]
    for tensor, (_, side) in zip(tensors, parts, strict=True):
        rank = tensor.shape[0 if side == "A" else 1]
        if not 0 < rank <= r:
            raise AdapterRefused(
                f"{tensor.name[:100]!r} has rank {rank} and {CONFIG} says at most {r}. "
                "Use the two files of one adapter."
            )
    modules = {module for module, _ in parts}
    if not modules or len(parts) != 2 * len(modules) or len(set(parts)) != len(parts):
        raise AdapterRefused(f"{name} holds {len(parts)} LoRA matrices; required: pairs of A and B. Train it again.")
    return modules


def _part(name: str, tensor: Tensor) -> tuple[str, str]:
    """The module and the side, A or B."""
    match = MATRIX.match(tensor.name)
    if match is None or len(tensor.shape) != 2:
        raise AdapterRefused(
            f"{name} holds {tensor.name[:100]!r}; required: only LoRA A and B matrices. "
            "Save it as a plain LoRA adapter."
        )
    return match["module"], match["side"]


def _module_size(module: str, model: ModelShape) -> tuple[int, int] | None:
    """Input and output width of a module that can carry LoRA in vLLM; None when the base has no such module."""
    if model.lora_on_embeddings and module in ("model.embed_tokens", "lm_head"):
        sizes = (model.vocab_size, model.hidden_size)
        return sizes if module == "model.embed_tokens" else sizes[::-1]
    match = LAYER.match(module)
    if match is None or int(match[1]) >= model.num_hidden_layers:
        return None
    name = EXPERT.sub(".experts.", match[2])
    matrix = lora_sizes(model, model.layers[int(match[1])]).get(name)
    return None if matrix is None else (matrix.columns, matrix.rows)


def _last_part(name: str) -> str:
    return PurePosixPath(name).name.lower()
