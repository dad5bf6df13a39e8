"""Every weight of a layer as vLLM holds it: its shape, how tensor parallel splits it, whether it can be quantised. Pure.

Names are those of the Hugging Face checkpoint, by which headers, adapters and lists of unquantised modules go. The
splits are those of vllm/model_executor/layers/linear.py: column-parallel layers split their output, row-parallel ones
their input, keys and values by head and not below one head; norms, routers and low-rank first halves are replicated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from serving.fit.shapes import Attention, Compressed, Dense, Experts, Latent, Layer, ModelShape, Recurrent

Split = Literal["rows", "columns", "heads", "all", "none"]
FUSED = ("phi3", "phi3_v", "phi4mm", "phimoe_fused")  # checkpoints that store q, k, v and gate, up in one matrix each

COPIED_VALUES = "self_attn.v_copy"  # vLLM loads the keys' weights into the values' slot too (gemma4.py); no file has it


@dataclass(frozen=True)
class Matrix:
    name: str  # below the layer: self_attn.q_proj
    rows: int  # outputs
    columns: int  # inputs; 1 for vectors
    split: Split
    copies: int = 1  # experts
    quantised: bool = True
    heads: int = 0  # for split "heads": how many there are to share out

    def share(self, tensor_parallel: int) -> float:
        """The part of the matrix that one GPU holds."""
        if self.split == "none":
            return 1.0
        return 1 / (min(tensor_parallel, self.heads) if self.split == "heads" else tensor_parallel)

    def values(self) -> int:
        return self.rows * self.columns * self.copies


@lru_cache(maxsize=512)
def layer_matrices(layer: Layer, model_type: str, hidden: int) -> tuple[Matrix, ...]:
    """Every matrix and vector of one layer."""
    return (
        *_mixer(layer, model_type, hidden),
        *_mlp(layer, model_type, hidden),
        _vector("norms", layer.norms * hidden),
    )


def lora_sizes(model: ModelShape, layer: Layer) -> dict[str, Matrix]:
    """The matrices of a layer that can carry LoRA in vLLM, by their name."""
    found = layer_matrices(layer, model.model_type, model.hidden_size)
    return {matrix.name: matrix for matrix in found if matrix.columns > 1 and matrix.split != "none"}


def _mixer(layer: Layer, model_type: str, hidden: int) -> Iterator[Matrix]:
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        yield from _attention(mixer, model_type, hidden)
    elif isinstance(mixer, Latent):
        yield from _latent(mixer, hidden)
    elif isinstance(mixer, Compressed):
        yield from _compressed(mixer, hidden)
    elif isinstance(mixer, Recurrent):
        yield from _delta(mixer, hidden) if mixer.kind == "delta" else _mamba2(mixer, hidden)


def _attention(a: Attention, model_type: str, hidden: int) -> Iterator[Matrix]:
    query, key = a.heads * a.head_dim * (2 if a.gated else 1), a.kv_heads * a.head_dim
    if model_type in FUSED:
        yield Matrix("self_attn.qkv_proj", query + 2 * key, hidden, "rows")
    else:
        yield Matrix("self_attn.q_proj", query, hidden, "rows")
        if not a.shares_cache:
            yield Matrix("self_attn.k_proj", key, hidden, "heads", heads=a.kv_heads)
        if not a.shares_cache:
            name = COPIED_VALUES if a.keys_are_values else "self_attn.v_proj"
            yield Matrix(name, key, hidden, "heads", heads=a.kv_heads)
    yield Matrix("self_attn.o_proj", hidden, a.heads * a.head_dim, "columns")
    if a.qkv_bias:
        yield Matrix("self_attn.qkv.bias", query + 2 * key, 1, "rows", quantised=False)
    if a.output_bias:
        yield _vector("self_attn.o_proj.bias", hidden)
    if a.qk_norm or a.sinks:
        yield _vector("self_attn.norms", a.qk_norm + (a.heads if a.sinks else 0))


def _latent(a: Latent, hidden: int) -> Iterator[Matrix]:
    """vllm/model_executor/models/deepseek_v2.py: the down projections are replicated, the up projections split."""
    query = a.heads * (a.nope_dim + a.rope_dim)
    if a.q_rank is None:
        yield Matrix("self_attn.q_proj", query, hidden, "rows")
    else:
        yield Matrix("self_attn.q_a_proj", a.q_rank, hidden, "none")
        yield Matrix("self_attn.q_b_proj", query, a.q_rank, "rows")
    yield Matrix("self_attn.kv_a_proj_with_mqa", a.kv_rank + a.rope_dim, hidden, "none")
    yield Matrix("self_attn.kv_b_proj", a.heads * (a.nope_dim + a.v_dim), a.kv_rank, "rows")
    yield Matrix("self_attn.o_proj", hidden, a.heads * a.v_dim, "columns")
    yield _vector("self_attn.norms", a.kv_rank + (a.q_rank or 0))
    if a.index_heads:
        yield Matrix("self_attn.indexer.wq_b", a.index_heads * a.index_dim, a.q_rank or hidden, "none")
        yield Matrix("self_attn.indexer.wk", a.index_dim + a.index_heads, hidden, "none", quantised=False)


def _compressed(a: Compressed, hidden: int) -> Iterator[Matrix]:
    """vllm/models/deepseek_v4/attention.py and compressor.py (0.32.0)."""
    yield Matrix("self_attn.q_a_proj", a.q_rank, hidden, "none")
    yield Matrix("self_attn.q_b_proj", a.heads * a.head_dim, a.q_rank, "rows")
    yield Matrix("self_attn.kv_proj", a.head_dim, hidden, "none")
    yield Matrix("self_attn.o_a_proj", a.o_groups * a.o_rank, a.heads * a.head_dim // a.o_groups, "rows")
    yield Matrix("self_attn.o_b_proj", hidden, a.o_groups * a.o_rank, "columns")
    if a.ratio:
        width = a.head_dim * (2 if a.ratio == 4 else 1)
        yield Matrix("self_attn.compressor", 2 * width, hidden, "none", quantised=False)
    if a.ratio == 4:
        yield Matrix("self_attn.indexer.wq_b", a.index_heads * a.index_dim, a.q_rank, "none")
        yield Matrix("self_attn.indexer.compressor", 4 * a.index_dim, hidden, "none", quantised=False)


def _delta(r: Recurrent, hidden: int) -> Iterator[Matrix]:
    """Gated delta net (vllm/model_executor/models/qwen3_next.py): q, k, v, z, two gates, a convolution, the output."""
    key, value = r.key_heads * r.key_dim, r.value_heads * r.value_dim
    yield Matrix("linear_attn.in_proj_qkvz", 2 * key + 2 * value, hidden, "rows")
    yield Matrix("linear_attn.in_proj_ba", 2 * r.value_heads, hidden, "rows", quantised=False)
    yield Matrix("linear_attn.conv1d", 2 * key + value, r.kernel, "rows", quantised=False)
    yield Matrix("linear_attn.out_proj", hidden, value, "columns")
    yield Matrix("linear_attn.vectors", 4 * r.value_heads + r.value_dim, 1, "rows", quantised=False)


def _mamba2(r: Recurrent, hidden: int) -> Iterator[Matrix]:
    """Mamba 2 mixer (vllm/model_executor/layers/mamba/mamba_mixer2.py): gate, x, B, C and dt in one projection."""
    inner, groups = r.value_heads * r.value_dim, r.key_heads * r.key_dim
    yield Matrix("mixer.in_proj", 2 * inner + 2 * groups + r.value_heads, hidden, "rows")
    yield Matrix("mixer.conv1d", inner + 2 * groups, r.kernel + 1, "rows", quantised=False)
    yield Matrix("mixer.out_proj", hidden, inner, "columns")
    yield Matrix("mixer.vectors", 3 * r.value_heads + inner, 1, "rows", quantised=False)


def _mlp(layer: Layer, model_type: str, hidden: int) -> Iterator[Matrix]:
    mlp = layer.mlp
    if isinstance(mlp, Dense):
        yield from _dense("mlp", mlp.width, mlp.gated, model_type, hidden)
        if mlp.bias:
            yield _vector("mlp.bias", mlp.width * (2 if mlp.gated else 1) + hidden)
    elif isinstance(mlp, Experts):
        yield Matrix("mlp.gate", mlp.count, hidden, "none", quantised=False)
        for side in ("gate_proj", "up_proj"):
            yield Matrix(f"mlp.experts.{side}", mlp.width, hidden, "all", copies=mlp.count)
        yield Matrix("mlp.experts.down_proj", hidden, mlp.width, "all", copies=mlp.count)
        if mlp.bias:
            yield Matrix("mlp.experts.bias", 2 * mlp.width + hidden, 1, "all", copies=mlp.count, quantised=False)
        for name, width in (("mlp.shared_experts", mlp.shared), ("mlp", mlp.beside)):
            if width:
                yield from _dense(name, width, True, model_type, hidden)
        if mlp.shared_gate:
            yield _vector("mlp.shared_expert_gate", hidden)


def _dense(name: str, width: int, gated: bool, model_type: str, hidden: int) -> Iterator[Matrix]:
    if gated and model_type in FUSED:
        yield Matrix(f"{name}.gate_up_proj", 2 * width, hidden, "rows")
    else:
        if gated:
            yield Matrix(f"{name}.gate_proj", width, hidden, "rows")
        yield Matrix(f"{name}.up_proj", width, hidden, "rows")
    yield Matrix(f"{name}.down_proj", hidden, width, "columns")


def _vector(name: str, values: int) -> Matrix:
    return Matrix(name, values, 1, "none", quantised=False)
