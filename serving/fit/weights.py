"""What the base model's weights take: on the GPU at the dtype served, on disk, and in the largest file.

Reads safetensors headers and the index, never a weight. It does not model quantised weights.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from serving.fit.config import ModelShape, UnsupportedModel
from serving.fit.safetensors_header import HeaderInvalid, Tensor, read_header
from serving.fit.strict_json import BadJson, read_object, shown

INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
VOCABULARY_PADDING = (
    64  # vLLM pads embedding rows to a multiple (vocab_parallel_embedding.py DEFAULT_VOCAB_PADDING_SIZE)
)
BUFFERS = re.compile(r"\.(inv_freq|position_ids|masked_bias)$")  # vLLM computes these itself
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors")  # of the same folder
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Weights:
    served_bytes: int  # on the GPU, with the rotary cache and the padded vocabulary
    disk_bytes: int  # all weight files
    largest_file_bytes: int


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
        return tuple(model / name for name in _indexed(model / INDEX))
    files = tuple(
        path
        for path in sorted(model.glob("*.safetensors"))
        if not path.name.startswith(("consolidated", "adapter_model"))
    )
    if not files:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in model.glob(pattern))
        found = f"pickled weights ({pickles[0]})" if pickles else "none"
        raise HeaderInvalid(
            f"No safetensors file in {model.name}; found: {found}. "
            "Convert the weights to safetensors or fetch them again."
        )
    return files


def measure(model: Path, shape: ModelShape, dtype_bytes: int) -> Weights:
    """`dtype_bytes`: bytes of one value at the dtype served. Raises HeaderInvalid, UnsupportedModel."""
    served = weights_bytes(read_tensors(model), shape, dtype_bytes)
    sizes = [path.stat().st_size for path in weight_files(model)]
    return Weights(served, sum(sizes), max(sizes))


def weights_bytes(tensors: tuple[Tensor, ...], shape: ModelShape, dtype_bytes: int) -> int:
    """Bytes on the GPU: every value at the served dtype, with the padded vocabulary and the rotary cache.

    With tied embeddings the output head is the embedding, and vLLM does not load a stored lm_head. The rotary cache
    holds cos and sin of every position, max_position_embeddings × head_dim values (rotary_embedding/base.py); vLLM
    counts it as weights: Llama-3.1-8B has 14.96 GiB of parameters and logs "Model loading took 14.99 GiB".

    Raises HeaderInvalid when the tensors are not those of the config, UnsupportedModel for integer or 8-bit weights.
    """
    loaded = [tensor for tensor in tensors if not BUFFERS.search(tensor.name)]
    if shape.tie_word_embeddings:
        loaded = [tensor for tensor in loaded if tensor.name != HEAD]
    _check_dtypes(loaded)
    _check_shapes({tensor.name: tensor.shape for tensor in loaded}, shape)
    parameters = sum(prod(tensor.shape) for tensor in loaded)
    padding = -shape.vocab_size % VOCABULARY_PADDING * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    rotary = shape.max_position_embeddings * shape.head_dim
    return (parameters + padding + rotary) * dtype_bytes


def _indexed(path: Path) -> tuple[str, ...]:
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


def _check_dtypes(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if tensor.dtype not in FLOATS:
            raise UnsupportedModel(
                f"Tensor {tensor.name[:80]!r} has dtype {tensor.dtype}; "
                f"the fit estimate models only {', '.join(FLOATS)}. "
                "Serve an unquantised checkpoint, or measure this one on the GPU."
            )


def _check_shapes(found: Mapping[str, tuple[int, ...]], shape: ModelShape) -> None:
    """A missing matrix would make the estimate too small, so each one that the config implies must be there."""
    for name, expected in _matrices(shape):
        if found.get(name) != expected:
            raise HeaderInvalid(
                f"{name} is {found.get(name, 'absent')} in the weight files and {expected} by config.json. "
                "Use the config.json and the weights of one model, all files of it."
            )


def _matrices(shape: ModelShape) -> Iterator[tuple[str, tuple[int, int]]]:
    """Lazily, so that an absurd layer count fails at the first layer that is not there."""
    hidden, sizes = shape.hidden_size, shape.linear_sizes
    yield EMBEDDING, (shape.vocab_size, hidden)
    if not shape.tie_word_embeddings:
        yield HEAD, (shape.vocab_size, hidden)
    for index in range(shape.num_hidden_layers):
        for name, (width_in, width_out) in sizes.items():
            yield f"model.layers.{index}.{name}.weight", (width_out, width_in)
