"""A model folder's config.json, its weight files and their headers. Reads headers only, never a weight."""

import re
from collections import Counter
from pathlib import Path

from serving.fit.config import ConfigInvalid, parse_config
from serving.fit.safetensors_header import HeaderInvalid, Tensor, read_header
from serving.fit.shapes import ModelShape
from serving.fit.strict_json import BadJson, read_object, shown

INDEX = "model.safetensors.index.json"
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors")  # of the same folder
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_config(base: Path) -> ModelShape:
    """Raises ConfigInvalid, UnsupportedModel."""
    try:
        config = read_object(base / "config.json")
    except BadJson as error:
        raise ConfigInvalid(
            f"config.json of {base.name}: {error}; required: the model's JSON file. Fetch the model again."
        ) from error
    return parse_config(config)


def read_tensors(model: Path) -> tuple[Tensor, ...]:
    """Every tensor of the model folder, from the headers. Raises HeaderInvalid."""
    tensors = tuple(tensor for path in weight_files(model) for tensor in read_header(path))
    twice, times = Counter(tensor.name for tensor in tensors).most_common(1)[0] if tensors else ("", 0)
    if times > 1:
        raise HeaderInvalid(
            f"Tensor {twice[:80]!r} is in two files of {model.name}; required: once. "
            f"Remove the stale file or add {INDEX}."
        )
    return tensors


def weight_files(model: Path) -> tuple[Path, ...]:
    """The safetensors files that vLLM would load: those of the index, else all. Raises HeaderInvalid."""
    if (model / INDEX).is_file():
        return tuple(model / name for name in indexed_files(model / INDEX))
    files = tuple(
        path
        for path in sorted(model.glob("*.safetensors"))
        if not path.name.startswith(("consolidated", "adapter_model"))
    )
    if not files:
        pickles = sorted(path.name for pattern in PICKLES for path in model.glob(pattern))
        found = f"pickled weights ({pickles[0]})" if pickles else "none"
        raise HeaderInvalid(
            f"No safetensors file in {model.name}; found: {found}. "
            "Convert the weights to safetensors or fetch them again."
        )
    return files


def indexed_files(path: Path) -> tuple[str, ...]:
    """Raises HeaderInvalid."""
    try:
        names = read_object(path).get("weight_map")
    except BadJson as error:
        raise HeaderInvalid(f"{path.name} cannot be read: {error}. Fetch it again.") from error
    if not isinstance(names, dict) or not names:
        raise HeaderInvalid(f"{path.name} has no weight_map with tensors. Fetch it again.")
    for name in names.values():
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            raise HeaderInvalid(
                f"{path.name} points to {shown(name)}; required: a .safetensors file in the same folder. "
                "Fetch it again."
            )
    return tuple(sorted(set(names.values())))
