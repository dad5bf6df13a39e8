"""The numbers of a model that decide memory, as values: layers, attention, experts, towers. Pure; it reads nothing.

config.py makes them from config.json; matrices.py turns them into weight shapes, kv.py into KV-cache pages.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from serving.fit.quantisation import Quantisation


@dataclass(frozen=True)
class Attention:
    """Softmax attention with keys and values in the cache."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # sliding window in tokens
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: int = 0  # values of the query and key norms together
    gated: bool = False  # the query projection also makes an output gate (Qwen3-Next, Qwen3.5)
    keys_are_values: bool = False  # one projection for both (Gemma 4's global layers); the cache still has both
    shares_cache: bool = False  # reads an earlier layer's cache and has no key or value projection (Gemma 3n, 4)
    sinks: bool = False  # one learned logit a head (gpt-oss)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: one compressed vector a token in the cache (DeepSeek-V2, arXiv 2405.04434)."""

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    index_heads: int = 0  # sparse attention's indexer (DeepSeek-V3.2)
    index_dim: int = 0


@dataclass(frozen=True)
class Compressed:
    """DeepSeek-V4's attention: a window and, by ratio, one compressed entry for several tokens."""

    heads: int
    head_dim: int
    rope_dim: int
    q_rank: int
    o_rank: int
    o_groups: int
    window: int
    ratio: int  # tokens for one entry; 0: the window alone
    index_heads: int
    index_dim: int


@dataclass(frozen=True)
class Recurrent:
    """A layer with a state of fixed size instead of a cache: Mamba 2 or a gated delta net."""

    kind: str  # mamba2, delta
    key_heads: int  # delta: key heads; mamba2: groups
    key_dim: int  # delta: of one head; mamba2: state size
    value_heads: int
    value_dim: int
    kernel: int  # of the causal convolution
    float32_state: bool


Mixer = Attention | Latent | Compressed | Recurrent | None


@dataclass(frozen=True)
class Dense:
    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Experts:
    count: int
    chosen: int  # for one token
    width: int
    shared: int = 0  # width of the shared expert, 0: none
    shared_gate: bool = False
    bias: bool = False
    beside: int = 0  # width of a dense MLP that runs beside the experts (Gemma 4)


Mlp = Dense | Experts | None


@dataclass(frozen=True)
class Layer:
    mixer: Mixer
    mlp: Mlp
    norms: int = 2  # vectors of hidden_size


@dataclass(frozen=True)
class Tower:
    """A vision or audio encoder with its projector."""

    parameters: int
    attention_parameters: int  # of them, those that stay whole where the heads do not divide by tensor parallel
    heads: int
    hidden: int
    width: int  # of its MLP
    layers: int
    patches: int  # of the largest item that the engine's profile run encodes
    tokens: int  # that this item becomes in the language model


@dataclass(frozen=True)
class ModelShape:
    """A model as its config.json describes it."""

    architecture: str
    model_type: str
    family: str  # dense, moe, mla, hybrid, sliding: what a report groups by
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str  # of the checkpoint as the config declares it
    layers: tuple[Layer, ...]
    streams: int = 1  # residual streams (hyper-connections)
    rotary_dim: int = 0  # width of the cached cosines and sines, 0: learned positions
    extra_parameters: int = 0  # outside the layers: per-layer embeddings, learned positions, hyper-connections
    towers: tuple[Tower, ...] = ()
    quantisation: Quantisation | None = None
    lora_on_embeddings: bool = False
    notes: tuple[str, ...] = field(default=())  # sentences that a report has to show
    unsure: float = 0.0  # share of the weights by which this architecture's formulas may be off

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layers)

    @cached_property
    def distinct_layers(self) -> tuple[tuple[Layer, int], ...]:
        """Each kind of layer once, with how often it occurs; most models have one to four kinds."""
        return tuple(Counter(self.layers).items())

    @property
    def multimodal(self) -> bool:
        return bool(self.towers)

    @cached_property
    def attentions(self) -> tuple[Attention | Latent | Compressed, ...]:
        return tuple(layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention | Latent | Compressed))

    @property
    def recurrent(self) -> bool:
        return any(isinstance(layer.mixer, Recurrent) for layer, _ in self.distinct_layers)
