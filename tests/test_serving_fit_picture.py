"""The picture: one line a part, bars of one width, the shares adding up to the card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit import EngineFlags, draw, estimate, find_gpu, weights_from_config
from serving.fit.picture import BAR_WIDTH, bar
from tests.fix_fit import SMOLLM2_CONFIG, shape_of

WEIGHTS = weights_from_config(shape_of(SMOLLM2_CONFIG))
ROWS = ["weights", "LoRA slots", "activation", "CUDA graphs", "non-torch", "KV, 8192 tokens", "headroom", "not used"]


@given(st.integers(-(2**50), 2**50), st.integers(1, 2**40))
def test_bars_have_one_width(size, total) -> None:
    assert len(bar(size, total)) == BAR_WIDTH
    assert bar(total, total) == "█" * BAR_WIDTH
    assert bar(-1, total).isspace()


@pytest.mark.parametrize(("size", "filled"), [(0, ""), (50, "█" * 15), (1, "▎"), (100, "█" * 30), (200, "█" * 30)])
def test_bar_of_a_hundred(size, filled) -> None:
    """One of 100 is 2.4 eighths of 30 characters: two eighths."""
    assert bar(size, 100).rstrip() == filled


@pytest.mark.parametrize("version", ["0.23.0", "0.19.0"])
def test_lines_of_a_report(version) -> None:
    """Engines before 0.21 take their graphs outside of the share, so the rows but those add up to the card."""
    report = estimate(shape_of(SMOLLM2_CONFIG), WEIGHTS, (), find_gpu("nvidia-l4"), EngineFlags(), version)
    title, *lines = draw(report).splitlines()
    assert title.startswith(f"nvidia-l4, vLLM {version}: fits, headroom ")
    assert [line[:22].strip() for line in lines[: len(ROWS)]] == ROWS
    assert lines[len(ROWS) :] == list(report.reasons)
    shares = [float(line.split()[-2]) for line in lines[: len(ROWS)]]
    outside = 100 * report.cuda_graph_bytes / report.total_bytes if version == "0.19.0" else 0
    assert sum(shares) == pytest.approx(100 + outside, abs=0.5)
