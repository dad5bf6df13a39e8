"""The KV cache as vLLM lays it out: pages, groups of layers, and the blocks that one request takes. Pure.

Source: vllm/v1/kv_cache_interface.py and vllm/v1/core/kv_cache_utils.py (get_kv_cache_groups and what it calls), read in
0.32.0. A page is one block of one layer. Layers of one kind make one group; models with several kinds get groups of
equal length, padded, whose blocks come from one pool. The engine's check and its "maximum concurrency" both follow from
the blocks that a request of max_model_len takes in every group.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from serving.fit.engines import Engine
from serving.fit.shapes import Attention, Compressed, Latent, Layer, ModelShape, Recurrent

BLOCK_TOKENS = 16  # --block-size on CUDA; attention of hybrid models is aligned to multiples of it
LATENT_BLOCK_TOKENS = 64  # FlashMLA's
FP8 = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "fp8_inc")


@dataclass(frozen=True)
class Page:
    """One block of one layer."""

    kind: str  # full, window, state
    nbytes: int
    tokens: int  # that it holds; for a state: of the whole sequence
    window: int = 0


@dataclass(frozen=True)
class Group:
    """Layers that share a block table."""

    page: Page
    layers: int  # with padding
    units: int = 1  # of the pool, that one block takes: 1, or its bytes where every kind has its own size


@dataclass(frozen=True)
class KvLayout:
    groups: tuple[Group, ...]
    block_bytes: int  # of one block over the layers of one group; all groups have the same

    def sequence_blocks(self, tokens: int, in_flight: int, states: int) -> int:
        """Blocks that a request of this length holds at once; `in_flight`: tokens computed but not yet settled."""
        return sum(_blocks(group.page, tokens, in_flight, states) * group.units for group in self.groups)


def lay_out(model: ModelShape, engine: Engine, kv_cache_dtype: str, dtype_bytes: int, tp: int, block: int) -> KvLayout:
    """`tp`: tensor parallel size. `block`: tokens of a block, where the flags say."""
    value = 1 if kv_cache_dtype in FP8 else dtype_bytes
    pages = Counter(
        page for layer, times in model.distinct_layers for page in _pages(layer, value, dtype_bytes, tp, block) * times
    )
    if not engine.hybrid_groups:
        pages = _all_full(pages)
    if not pages:
        return KvLayout((), 1)
    if any(isinstance(mixer, Compressed) for mixer in model.attentions):
        return KvLayout(tuple(Group(page, layers, page.nbytes * layers) for page, layers in pages.items()), 1)
    unified = _unify(pages)
    if len(unified) == 1:
        page, layers = unified[0]
        return KvLayout((Group(page, layers),), page.nbytes * layers)
    return _grouped(unified)


def _pages(layer: Layer, value: int, dtype_bytes: int, tp: int, block: int) -> list[Page]:
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        if mixer.shares_cache:
            return []
        size = 2 * max(mixer.kv_heads // tp, 1) * mixer.head_dim * value
        tokens = block or BLOCK_TOKENS
        return [Page("window" if mixer.window else "full", size * tokens, tokens, mixer.window or 0)]
    if isinstance(mixer, Latent):
        return _latent(mixer, value, block or LATENT_BLOCK_TOKENS)
    if isinstance(mixer, Compressed):
        return _compressed(mixer, block or 256)
    return [Page("state", _state_bytes(mixer, dtype_bytes, tp), 0)] if isinstance(mixer, Recurrent) else []


def _latent(mixer: Latent, value: int, tokens: int) -> list[Page]:
    """One vector a token, not doubled and not divided by tensor parallel; the sparse indexer has fp8 keys of its own."""
    found = [Page("full", (mixer.kv_rank + mixer.rope_dim) * value * tokens, tokens)]
    if mixer.index_heads:
        found.append(Page("full", (mixer.index_dim + 4) * tokens, tokens))
    return found


def _compressed(mixer: Compressed, tokens: int) -> list[Page]:
    """DeepSeek-V4: entries of 584 bytes (448 fp8, 128 bf16, 8 of scales), one for each `ratio` tokens, and a window of
    uncompressed ones; the compressors keep float32 states of the last tokens in small blocks, the indexer has keys of
    132 bytes (vllm/models/deepseek_v4/attention.py, compressor.py). Each kind keeps pages of its own size.
    """
    entry, key = mixer.head_dim + 72, mixer.index_dim + 4
    found = [Page("window", entry * 64, 64, mixer.window)]
    if mixer.ratio == 4:
        found.append(Page("full", entry * tokens // 4, tokens))
        found.append(Page("full", key * tokens // 4, tokens))
        found.append(Page("window", entry * 64, 4, 8))  # padded to the entries' page
        found.append(Page("window", key * 64, 4, 8))
    elif mixer.ratio:
        found.append(Page("full", entry * max(tokens // mixer.ratio, 1), tokens))
        found.append(Page("window", entry * 64, 8, mixer.ratio))
    return found


def _state_bytes(mixer: Recurrent, dtype_bytes: int, tp: int) -> int:
    """Convolution state and recurrent state (model_executor/layers/mamba/mamba_utils.py)."""
    key, value = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
    width = value + 2 * key
    convolution = width // tp * (mixer.kernel - 1) * dtype_bytes
    state = max(mixer.value_heads // tp, 1) * mixer.value_dim * mixer.key_dim
    return convolution + state * (4 if mixer.float32_state else dtype_bytes)


def _all_full(pages: Counter[Page]) -> Counter[Page]:
    """Without the hybrid manager, windows are kept at full length (unify_hybrid_kv_cache_specs)."""
    found: Counter[Page] = Counter()
    for page, times in pages.items():
        found[Page("full", page.nbytes, page.tokens) if page.kind == "window" else page] += times
    return found


def _unify(pages: Counter[Page]) -> list[tuple[Page, int]]:
    """Pages of one size for all kinds. Kinds that all keep every token stay as they are, in one group.

    States set the attention's block: it grows in steps of 16 tokens until its page holds a state, which is then padded
    (platforms/interface.py _align_hybrid_block_size). Otherwise smaller pages get more tokens, where that comes out
    even, or padding.
    """
    kinds = {(page.kind, page.window) for page in pages}
    if kinds <= {("full", 0)}:
        layers = sum(pages.values())
        total = sum(page.nbytes * times for page, times in pages.items())
        tokens = min(page.tokens for page in pages)
        if len({page.nbytes // page.tokens for page in pages}) == 1:
            return [(max(pages, key=lambda page: page.nbytes), layers)]
        return [(Page("full", total, tokens), 1)]
    states = [page.nbytes for page in pages if page.kind == "state"]
    found = pages
    if states and len(states) < len(pages):
        found = Counter()
        for page, times in pages.items():
            if page.kind != "state":
                per_token = page.nbytes // page.tokens
                tokens = max(ceil(max(states) / (BLOCK_TOKENS * per_token)) * BLOCK_TOKENS, page.tokens)
                found[Page(page.kind, per_token * tokens, tokens, page.window)] += times
            else:
                found[page] += times
    largest = max(page.nbytes for page in found)
    merged: Counter[Page] = Counter()
    for page, times in found.items():
        ratio = 1 if page.kind == "state" or largest % page.nbytes else largest // page.nbytes
        merged[Page(page.kind, largest, page.tokens * ratio, page.window)] += times
    return list(merged.items())


def _grouped(pages: list[tuple[Page, int]]) -> KvLayout:
    """Groups as long as the rarest kind; as the commonest, where that is under 1.5 times as many."""
    counts = [times for _, times in pages]
    length = max(counts) if max(counts) < min(counts) * 1.5 else min(counts)
    groups = tuple(Group(page, length) for page, times in pages for _ in range(ceil(times / length)))
    return KvLayout(groups, length * pages[0][0].nbytes)


def _blocks(page: Page, tokens: int, in_flight: int, states: int) -> int:
    """max_memory_usage_bytes of the kind's spec, in pages."""
    if page.kind == "state":
        return states
    if page.kind == "window":
        return ceil(min(page.window - 1 + in_flight, tokens) / page.tokens) + 1
    return ceil(tokens / page.tokens)
