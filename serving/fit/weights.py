"""What a model's weights take on one GPU, by how tensor parallel shares them out. Pure.

From headers (weights_from_headers) or, where there are none, from config.json by architecture (weights_from_config).
Nothing here reads a file; files.py does.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod

from serving.fit.config import UnsupportedModel
from serving.fit.matrices import COPIED_VALUES, Matrix, layer_matrices
from serving.fit.naming import FLOATS, HEAD, NOT_LOADED, area_of, matrix_of, split_of
from serving.fit.quantisation import NVFP4, Quantisation, UnsupportedQuantisation, by_flag, by_word
from serving.fit.safetensors_header import Tensor
from serving.fit.shapes import Dense, Experts, ModelShape
from serving.fit.weight_checks import check_weights

VOCABULARY_PADDING = 64  # vLLM pads embedding rows to a multiple (vocab_parallel_embedding.py)
MXFP4_HIDDEN, MXFP4_WIDTH = 256, 128  # what expert matrices are padded to (quantization/mxfp4.py)
HEADER_BAND, CONFIG_BAND, GUESS_BAND = 0.005, 0.012, 0.03
MIXED_BAND = 0.2  # NVFP4 checkpoints keep attention in 16 bits or not, and only their quantization_config says which


@dataclass(frozen=True)
class Piece:
    """Weights that are shared out in one way."""

    split: str  # rows, columns, heads, all (experts), vocab, tower, none
    heads: int  # for splits "heads" and "tower"
    layers: bool  # inside the layers, which pipeline parallel shares out
    values: int  # held in the dtype served
    nbytes: int  # held as they are: quantised weights and their scales


@dataclass(frozen=True)
class Weights:
    pieces: tuple[Piece, ...]
    repacked_bytes: int  # the largest quantised matrix; a second copy of it lives while vLLM repacks it
    disk_bytes: int  # all weight files
    largest_file_bytes: int
    source: str  # headers or config
    band: float  # share by which the sum may be off
    quantisation: Quantisation | None = None

    def on_gpu(
        self,
        dtype_bytes: int,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        experts: int = 0,
        repack: bool = True,
    ) -> int:
        """Bytes on the fullest GPU. `experts`: how many GPUs share the experts, where that is not tensor parallel.

        vLLM's "Model loading took" is the peak while loading (max_memory_allocated), so the matrix that is being
        repacked for Marlin counts twice (`repack`; V0 logged what was left afterwards): Qwen3-14B-AWQ has 9.29 GiB of
        weights and logs 9.36. An encoder's attention stays whole where its heads do not divide.
        """
        total = 0.0
        for piece in self.pieces:
            ways = tensor_parallel
            if piece.split == "none":
                ways = 1
            elif piece.split == "heads":
                ways = min(tensor_parallel, piece.heads)
            elif piece.split == "tower":
                ways = 1 if piece.heads % tensor_parallel else tensor_parallel
            elif piece.split == "all" and experts:
                ways = experts
            share = 1 / ways / (pipeline_parallel if piece.layers else 1)
            total += (piece.values * dtype_bytes + piece.nbytes) * share
        return ceil(total + (self.repacked_bytes / tensor_parallel if repack else 0))


def weights_from_headers(
    tensors: Sequence[Tensor], model: ModelShape, file_sizes: Sequence[int] = (), quantization: str | None = None
) -> Weights:
    """The tensors that vLLM loads: floats at the dtype served, everything else as it is stored.

    With tied embeddings a stored lm_head is not loaded. Raises HeaderInvalid when the tensors are not those of the
    config, UnsupportedModel for dtypes that are no weights.
    """
    loaded = [tensor for tensor in tensors if not NOT_LOADED.search(tensor.name)]
    if model.tie_word_embeddings:
        loaded = [tensor for tensor in loaded if not HEAD.search(tensor.name)]
    check_weights({tensor.name: tensor for tensor in loaded}, model)
    found: Counter[tuple[str, int, bool, bool]] = Counter()
    for tensor in loaded:
        split, heads = split_of(tensor.name, tensor.shape, model)
        real = tensor.dtype in FLOATS
        found[split, heads, area_of(tensor.name), real] += prod(tensor.shape) if real else tensor.nbytes
    runtime = _runtime(model, quantization)
    if runtime:
        found = _quantised_while_loading(loaded, model, runtime, found)
    pieces = [
        Piece(split, heads, layers, amount if real else 0, 0 if real else amount)
        for (split, heads, layers, real), amount in found.items()
    ]
    packed = [tensor.nbytes for tensor in loaded if tensor.dtype not in FLOATS and len(tensor.shape) > 1]
    sizes = list(file_sizes) or [sum(tensor.nbytes for tensor in tensors)]
    return Weights(
        (*pieces, *_copied_values(model), *_added(model)), max(packed, default=0), sum(sizes), max(sizes), "headers", HEADER_BAND,
        runtime or model.quantisation,
    )  # fmt: skip


def weights_from_config(model: ModelShape, quantization: str | None = None, name: str = "") -> Weights:
    """Every matrix that the architecture has, in the checkpoint's quantisation.

    That is quantization_config's; else what `quantization` (the flag) says; else what the ending of `name` says.
    Raises UnsupportedModel.
    """
    try:
        found = model.quantisation or by_flag(quantization) or by_word(_ending(name))
    except UnsupportedQuantisation as error:
        raise UnsupportedModel(str(error)) from error
    pieces: Counter[tuple[str, int, bool, bool]] = Counter()
    largest = 0.0
    for layer, times in model.distinct_layers:
        matrices = layer_matrices(layer, model.model_type, model.hidden_size)
        for matrix in matrices:
            quantised = found is not None and _is_quantised(matrix, found)
            amount = _packed_bytes(matrix, found, model) if quantised and found else matrix.values()
            pieces[matrix.split, matrix.heads, True, not quantised] += round(amount) * times
        if found is not None and not found.runtime:
            largest = max([largest, *_repacked(layer.mlp, matrices, found, model)])
    _embeddings(pieces, model, found)
    disk = sum(amount * (2 if real else 1) for (_, _, _, real), amount in pieces.items())
    parts = tuple(
        Piece(split, heads, layers, amount if real else 0, 0 if real else amount)
        for (split, heads, layers, real), amount in pieces.items()
    )
    band = CONFIG_BAND
    if found and not found.stated:
        band = MIXED_BAND if found.method == NVFP4.method else GUESS_BAND
    return Weights(
        (*parts, *_added(model)), int(largest), disk, min(disk, 5 * 10**9), "config", band + model.unsure, found
    )


def _ending(name: str) -> str:
    return name.rpartition("/")[2]


def _runtime(model: ModelShape, quantization: str | None) -> Quantisation | None:
    """--quantization on a 16-bit checkpoint makes vLLM quantise while it loads (fp8, bitsandbytes)."""
    if model.quantisation or not quantization:
        return None
    try:
        found = by_flag(quantization)
    except UnsupportedQuantisation as error:
        raise UnsupportedModel(str(error)) from error
    return found if found and found.method in ("fp8", "bitsandbytes") else None


def _quantised_while_loading(
    tensors: Iterable[Tensor],
    model: ModelShape,
    found: Quantisation,
    pieces: Counter[tuple[str, int, bool, bool]],
) -> Counter[tuple[str, int, bool, bool]]:
    """Moves the matrices of the layers from the dtype served to the width of the method."""
    for tensor in tensors:
        matrix = matrix_of(tensor.name, model)
        if matrix is None or not matrix.quantised or len(tensor.shape) < 2 or tensor.dtype not in FLOATS:
            continue
        split, heads = split_of(tensor.name, tensor.shape, model)
        pieces[split, heads, True, True] -= prod(tensor.shape)
        pieces[split, heads, True, False] += int(
            prod(tensor.shape) * found.bits / 8 + tensor.shape[0] * found.row_bytes
        )
    return pieces


def _is_quantised(matrix: Matrix, found: Quantisation) -> bool:
    if not matrix.quantised or (found.experts_only and ".experts." not in matrix.name):
        return False
    return not found.skips(f"model.layers.*.{matrix.name}")


def _packed_bytes(matrix: Matrix, found: Quantisation, model: ModelShape) -> float:
    rows, columns = matrix.rows, matrix.columns
    bits = found.expert_bits if found.expert_bits and ".experts." in matrix.name else found.bits
    if found.method == "mxfp4":
        first, second = (MXFP4_HIDDEN, MXFP4_WIDTH) if "down_proj" in matrix.name else (MXFP4_WIDTH, MXFP4_HIDDEN)
        rows, columns = ceil(rows / first) * first, ceil(columns / second) * second
    return (rows * columns * bits / 8 + rows * found.row_bytes) * matrix.copies


def _repacked(mlp: object, matrices: Iterable[Matrix], found: Quantisation, model: ModelShape) -> list[float]:
    """Sizes of what is repacked at once: gate and up are one matrix, the experts of a layer are one."""
    if found.method == "mxfp4" or (found.method in ("fp8", "compressed-tensors") and found.bits >= 8):
        return []
    sizes = {m.name: _packed_bytes(m, found, model) for m in matrices if _is_quantised(m, found)}
    both = 2 if isinstance(mlp, Experts) or (isinstance(mlp, Dense) and mlp.gated) else 1
    return [size * (both if "up_proj" in name or "gate_proj" in name else 1) for name, size in sizes.items()]


def _embeddings(pieces: Counter[tuple[str, int, bool, bool]], model: ModelShape, found: Quantisation | None) -> None:
    table = model.vocab_size * model.hidden_size
    tables = 1 if model.tie_word_embeddings else 2
    if found is not None and found.embeddings:
        pieces["vocab", 0, False, False] += round(table * tables * found.bits / 8)
    else:
        pieces["vocab", 0, False, True] += table * tables
    pieces["none", 0, False, True] += model.hidden_size
    pieces["rows", 0, False, True] += model.extra_parameters
    for tower in model.towers:
        pieces["rows", 0, False, True] += tower.parameters - tower.attention_parameters
        pieces["tower", tower.heads, False, True] += tower.attention_parameters


def _added(model: ModelShape) -> tuple[Piece, ...]:
    """What vLLM allocates that no file has: padded vocabulary rows, and cos and sin of every position.

    The rotary cache is max_position_embeddings × rotary_dim values (rotary_embedding/base.py): Llama-3.1-8B has 14.96
    GiB of parameters and logs "Model loading took 14.99 GiB".
    """
    padding = -model.vocab_size % VOCABULARY_PADDING * model.hidden_size * (1 if model.tie_word_embeddings else 2)
    rotary = model.max_position_embeddings * model.rotary_dim
    return (Piece("vocab", 0, False, padding, 0), Piece("none", 0, False, rotary, 0))


def _copied_values(model: ModelShape) -> tuple[Piece, ...]:
    """Values' slots that are filled from the keys' weights, at 16 bits."""
    copies = [
        (times, matrix)
        for layer, times in model.distinct_layers
        for matrix in layer_matrices(layer, model.model_type, model.hidden_size)
        if matrix.name == COPIED_VALUES
    ]
    return tuple(Piece("heads", matrix.heads, True, times * matrix.values(), 0) for times, matrix in copies)
