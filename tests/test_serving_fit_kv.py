"""The KV cache's pages, groups and blocks against numbers worked out by hand and logged by vLLM."""

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit import parse_config
from serving.fit.engines import find_engine
from serving.fit.kv import KvLayout, lay_out
from tests.fix_fit import DATA, GIB, LLAMA_8B, QWEN25_05B, SMOLLM2_CONFIG, TINY, shape_of

NEWEST, OLD = find_engine("0.23.0"), find_engine("0.10.2")


def layout_of(name: str, dtype: str = "auto", tp: int = 1, engine=NEWEST) -> KvLayout:
    config = json.loads((DATA / "fit_configs" / f"{name}.json").read_text())
    return lay_out(parse_config(config), engine, dtype, 2, tp, 0)


def tiny(dtype: str = "auto", tp: int = 1, **changes: object) -> KvLayout:
    return lay_out(shape_of(TINY | changes), NEWEST, dtype, 2, tp, 0)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN25_05B, 12_288),  # keys and values 2 × 24 layers × 2 KV heads × 64 × 2 bytes
        (LLAMA_8B, 131_072),  # 2 × 32 × 8 × 128 × 2: the "128 KiB a token" of Llama 3
        (SMOLLM2_CONFIG, 23_040),  # 2 × 30 × 3 × 64 × 2
    ],
    ids=["Qwen2.5-0.5B", "Llama-3.1-8B", "SmolLM2-135M"],
)
def test_bytes_of_a_token(config, expected) -> None:
    assert lay_out(shape_of(config), NEWEST, "auto", 2, 1, 0).block_bytes == 16 * expected
    assert lay_out(shape_of(config), NEWEST, "fp8", 2, 1, 0).block_bytes == 8 * expected
    assert lay_out(shape_of(config), NEWEST, "auto", 4, 1, 0).block_bytes == 32 * expected


def test_heads_are_shared_out_and_not_below_one() -> None:
    """TINY has two KV heads of 4: over two GPUs each has one, over four each still has one."""
    assert [tiny(tp=ways).block_bytes for ways in (1, 2, 4)] == [16 * 2 * 2 * 2 * 4 * 2 // share for share in (1, 2, 2)]


def test_a_sequence_is_whole_blocks() -> None:
    layout = lay_out(shape_of(SMOLLM2_CONFIG), NEWEST, "auto", 2, 1, 0)
    assert [layout.sequence_blocks(tokens, 2048, 1) for tokens in (1, 16, 17, 8192)] == [1, 1, 2, 512]


def test_gemma_3_groups() -> None:
    """10 global and 52 sliding layers make 1 + 6 groups of 10, with 8 padding layers; 16,000 blocks are 36,560 tokens
    of "GPU KV cache size" and 4.46 requests of 8192 tokens, as vLLM 0.19 logs with 19.53 GiB.
    """
    layout = layout_of("google__gemma-3-27b-it")
    assert len(layout.groups) == 7 and {group.layers for group in layout.groups} == {10}
    blocks = int(19.53 * GIB) // layout.block_bytes
    assert blocks // 7 * 16 == pytest.approx(36_560, abs=32)
    assert blocks / layout.sequence_blocks(8192, 8192, 1) == pytest.approx(4.46, abs=0.01)


def test_gpt_oss_needs_what_the_engine_says() -> None:
    """gpt-oss-120b: "max seq len (131072), (4.79 GiB KV cache is needed" with batches of 8192 tokens."""
    layout = layout_of("openai__gpt-oss-120b")
    needed = layout.sequence_blocks(131_072, 8192, 1) * layout.block_bytes
    assert needed / GIB == pytest.approx(4.79, abs=0.01)


def test_qwen_3_8_state_sets_the_block() -> None:
    """Two GPUs, fp8: a token of one layer takes 2 × 2 × 256 = 1024 bytes, a state 24 × 128 × 128 × 4 + 5120 × 3 × 2 =
    1,603,584; so blocks of 1568 tokens, and 2.31 requests of 131,072 tokens in 4.99 GiB, as logged.
    """
    layout = layout_of("Qwen__Qwen3.8-27B", "fp8", tp=2)
    full = next(group.page for group in layout.groups if group.page.kind == "full")
    assert (full.tokens, full.nbytes) == (1568, 1568 * 1024)
    assert len(layout.groups) == 4
    blocks = int(4.99 * GIB) // layout.block_bytes
    assert blocks / layout.sequence_blocks(131_072, 8192, 2) == pytest.approx(2.31, abs=0.03)


def test_latent_attention_keeps_one_vector_and_is_not_shared_out() -> None:
    """DeepSeek-V2.5: 60 layers × (512 + 64) × 2 bytes a token, in blocks of 64."""
    for ways in (1, 8):
        assert layout_of("deepseek-ai__DeepSeek-V2.5", tp=ways).block_bytes == 64 * 60 * 576 * 2


def test_shared_caches_take_no_pages() -> None:
    """Gemma 4 E2B: of 35 layers the last 20 read earlier caches; 3 global layers of 512 and 12 sliding ones of 256."""
    layout = layout_of("google__gemma-4-E2B-it-qat-w4a16-ct")
    assert sum(group.layers for group in layout.groups) == 15


def test_engines_without_hybrid_groups_keep_windows_at_full_length() -> None:
    new, old = layout_of("google__gemma-2-27b-it"), layout_of("google__gemma-2-27b-it", engine=OLD)
    assert len(new.groups) == 2 and len(old.groups) == 1
    assert old.sequence_blocks(8192, 8192, 1) * old.block_bytes == 8192 * 46 * 2 * 16 * 128 * 2


def test_a_window_is_held_with_the_batch_in_flight() -> None:
    """Window 8 and a batch of 32: 7 + 32 tokens are 3 blocks, and one more because a window may begin inside a block."""
    layout = tiny(sliding_window=8)
    assert layout.sequence_blocks(256, 32, 1) == ceil(39 / 16) + 1
    assert layout.sequence_blocks(20, 32, 1) == ceil(20 / 16) + 1


@given(st.integers(1, 200_000), st.integers(0, 50_000), st.integers(1, 16384))
@pytest.mark.parametrize(
    "name", ["google__gemma-3-27b-it", "Qwen__Qwen3.8-27B", "openai__gpt-oss-20b", "deepseek-ai__DeepSeek-V4-Flash"]
)
def test_longer_sequences_never_take_less(name, tokens, more, in_flight) -> None:
    layout = layout_of(name)
    assert layout.sequence_blocks(tokens + more, in_flight, 2) >= layout.sequence_blocks(tokens, in_flight, 2)
