"""What is known of a model without its weights: config.json, and name, dtype and shape of each tensor. Pure.

A folder, a Hugging Face repository, an OCI image or two JSON files all end as one ModelFiles; model_reader.py makes it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from serving.fit.safetensors_header import HeaderInvalid, Tensor
from serving.fit.strict_json import is_int, shown

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors")  # of the same folder
NOT_THE_MODEL = ("consolidated", "adapter_model")  # Mistral's own copy of the weights; a LoRA adapter
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_TOTAL_BYTES = 2**53


@dataclass(frozen=True)
class ModelFiles:
    name: str  # as a person calls it: the folder's name, an id, an image
    names: tuple[str, ...]  # what an adapter may call this base
    config: Mapping[str, object]
    tensors: tuple[Tensor, ...] | None  # None: no headers, so config.json is all there is
    file_bytes: tuple[int, ...]  # of each weight file; empty without them
    index_bytes: int | None  # total_size of the index, where there is an index and no weight file
    digest: str  # sha256:… of config.json, the index and the headers: other weights of the same shapes have the same
    origin: str  # in words, for the report: where it was read


def weight_names(sizes: Mapping[str, int], index: Mapping[str, object] | None) -> tuple[str, ...]:
    """The safetensors files that vLLM would load: those of the index, else all. Empty: there are only JSON files.

    `sizes` are the files there are, in bytes. Raises HeaderInvalid.
    """
    if index is not None:
        named = _indexed(index)
        missing = [name for name in named if name not in sizes]
        if 0 < len(missing) < len(named) or (missing and _loose(sizes)):
            raise HeaderInvalid(
                f"{len(missing)} of the {len(named)} weight files in {INDEX} are absent, {missing[0]} first; "
                "required: all of them, or the two JSON files alone. Fetch the model again."
            )
        return () if missing else named
    found = _loose(sizes)
    pickles = sorted(name for name in sizes if "/" not in name and PurePosixPath(name).suffix in PICKLES)
    if not found and pickles:
        raise HeaderInvalid(
            f"The model has pickled weights ({pickles[0]}) and no safetensors; required: safetensors, because a pickle "
            "runs code when it is loaded. Convert it (transformers: save_pretrained)."
        )
    return found


def total_size(index: Mapping[str, object]) -> int | None:
    """Bytes of all tensors as the index says; None where it does not. Raises HeaderInvalid."""
    metadata = index.get("metadata")
    if not isinstance(metadata, dict) or "total_size" not in metadata:
        return None
    size = metadata["total_size"]
    if isinstance(size, float) and size.is_integer():  # some conversion tools write 1.6e10
        size = int(size)
    if not is_int(size) or not 0 < size <= MAX_TOTAL_BYTES:
        raise HeaderInvalid(f"total_size is {shown(size)} in {INDEX}; required: bytes above 0. Fetch the file again.")
    return size


def _loose(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Weight files beside config.json, in the order of their names."""
    return tuple(sorted(name for name in sizes if SHARD.fullmatch(name) and not name.startswith(NOT_THE_MODEL)))


def _indexed(index: Mapping[str, object]) -> tuple[str, ...]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise HeaderInvalid(f"{INDEX} has no weight_map with tensors. Fetch it again.")
    for name in weight_map.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise HeaderInvalid(
                f"{INDEX} points to {shown(name)}; required: a .safetensors file in the same folder. Fetch it again."
            )
    return tuple(sorted(set(weight_map.values())))
