"""Whether the tensors of the weight files are those of config.json. Pure.

A missing matrix would make the estimate too small, so what an architecture must have is looked for by name and shape.
"""

from collections.abc import Iterator, Mapping

from serving.fit.matrices import COPIED_VALUES, Matrix, layer_matrices
from serving.fit.naming import EMBEDDING, FLOATS, HEAD, LAYER, TOWER, matrix_of
from serving.fit.safetensors_header import HeaderInvalid, Tensor
from serving.fit.shapes import Layer, ModelShape

PLAIN_NAMES = (
    "llama", "mistral", "qwen2", "qwen3", "granite", "gemma", "gemma2", "gemma3_text", "mixtral", "qwen2_moe", "qwen3_moe",
    "smollm3", "olmo2", "seed_oss",
)  # fmt: skip


def check_weights(found: Mapping[str, Tensor], model: ModelShape) -> None:
    """The embedding, the head, and every layer with its matrices. Raises HeaderInvalid."""
    tables = [tensor for name, tensor in found.items() if EMBEDDING.search(name)]
    expected = (model.vocab_size, model.hidden_size)
    if not tables or (tables[0].dtype in FLOATS and tables[0].shape != expected):
        raise _mismatch("the embedding", str(tables[0].shape if tables else "absent"), str(expected))
    if not model.tie_word_embeddings and not any(HEAD.search(name) for name in found):
        raise _mismatch("lm_head", "absent", "there, since tie_word_embeddings is false")
    for name, tensor in found.items():
        matrix = matrix_of(name, model)
        if matrix is None or tensor.dtype not in FLOATS or len(tensor.shape) != 2:
            continue
        if tensor.shape != (matrix.rows, matrix.columns):
            raise _mismatch(name[:100], str(tensor.shape), str((matrix.rows, matrix.columns)))
    _check_layers(found, model)


def _check_layers(found: Mapping[str, Tensor], model: ModelShape) -> None:
    """Every layer is there, with each matrix that another layer of its kind has; of the plain families, with all.

    Other families fuse or name their matrices in ways that say nothing about what is missing.
    """
    held: dict[int, set[str]] = {}
    for name in found:
        place = _layer_and_module(name)
        if place is not None and not TOWER.search(name):
            held.setdefault(place[0], set()).add(place[1])
    seen: dict[Layer, set[str]] = {}
    for index, layer in enumerate(model.layers):
        if index not in held:
            raise _mismatch(f"layer {index}", "absent", f"there, as num_hidden_layers is {model.num_hidden_layers}")
        wanted = {matrix.name for matrix in _matrices_of_files(layer, model)}
        seen.setdefault(layer, set()).update(held[index] & wanted if model.model_type not in PLAIN_NAMES else wanted)
    for index, layer in enumerate(model.layers):
        missing = seen[layer] - held[index]
        if missing:
            raise _mismatch(f"model.layers.{index}.{min(missing)}", "absent", "there")


def _matrices_of_files(layer: Layer, model: ModelShape) -> Iterator[Matrix]:
    for matrix in layer_matrices(layer, model.model_type, model.hidden_size):
        if matrix.quantised and matrix.columns > 1 and matrix.name != COPIED_VALUES and ".experts." not in matrix.name:
            yield matrix


def _layer_and_module(name: str) -> tuple[int, str] | None:
    match = LAYER.search(name)
    if match is None:
        return None
    return int(match["index"]), match["module"]


def _mismatch(what: str, observed: str, required: str) -> HeaderInvalid:
    return HeaderInvalid(
        f"{what} is {observed} in the weight files and {required} by config.json. "
        "Use the config.json and the weights of one model, all files of it."
    )
