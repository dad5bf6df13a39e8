"""The evidence table in words: every metric of every step, and what cannot break the table."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from serving.rollout.model import Finding, Share, Step
from tasks.rollout_evidence import markdown, ratios, rows
from tasks.strategies import strategy_of, way_of
from tests import fix_outcome as made
from tests.fix_spec import SMALL, fill, load

SLOW = Finding("first_token", 0.1, 0.25, 2.1, 3.0, 512.0, 460.0, "undo", "median first token 250 ms against 100 ms")
CUT = Finding("cut", 0.0, 0.25, 0.1, 0.4, 1.5, 460.0, "go_on", "answers cut | at the\nlimit")
LIMIT = Finding("errors_limit", 0.0, None, None, None, 1.0, 460.0, "go_on")
SHORT = Finding("shorter", 20.0, 5.0, 3.0, 5.5, 2.0, 460.0, "go_on")


def step(*findings: Finding) -> Step:
    share = Share(0.5, 30, 60, 0.31, 0.69, True)
    return replace(made.step(50, 30, 30), decision="undo", split=share, findings=findings)


def test_a_row_has_both_values_in_their_unit_with_the_interval_and_the_odds() -> None:
    first, cut, limit, short = rows((step(SLOW, CUT, LIMIT, SHORT),))
    assert (first.step, first.weight, first.observed) == (1, "50 %", "50.0% [31.0%, 69.0%]")
    assert (first.stable, first.candidate, first.interval) == ("100 ms", "250 ms", "2.10 to 3.00 times")
    assert (first.evidence, first.decision) == ("512 of 460", "undo")
    assert (cut.stable, cut.candidate, cut.interval) == ("0.0%", "25.0%", "10.0% to 40.0%")
    assert (limit.metric, limit.candidate, limit.interval) == ("errors limit", "none", "none")
    assert (short.stable, short.candidate) == ("20 tokens", "5 tokens")


def test_the_markdown_has_a_line_for_each_metric_and_every_line_as_many_cells() -> None:
    text = markdown(made.rollout((step(SLOW, CUT),), "undone", "at 50 %: slow"))
    assert "Requests: replayed by the release." in text
    table = [line for line in text.splitlines() if line.startswith("| ")][-3:]
    assert table[0].startswith("| step | weight | observed | metric |")
    assert "| first token | 100 ms | 250 ms | 2.10 to 3.00 times | 512 of 460 | undo |" in table[1]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}


def test_the_plot_says_the_ratios_in_words() -> None:
    found = ratios((step(SLOW, CUT), step(replace(SLOW, low=0.0, high=900.0, decision="go_on"))))
    assert found.label == "Candidate against stable. 50 % first token: 2.10 to 3.00; 50 % first token: 0.00 to 900.00."
    for svg in (found.wide, found.narrow):
        assert ElementTree.fromstring(svg).tag == "svg"  # noqa: S314  # made a moment ago


def test_the_report_has_the_table_and_the_plot() -> None:
    from tasks.report import render_report

    outcome = made.undone()
    assert outcome.rollout
    page = render_report(
        replace(
            outcome,
            rollout=replace(outcome.rollout, steps=(step(SLOW, CUT),), cold_start=(("load", 2.0),), golden=(15, 16)),
        )
    )
    assert "Evidence of each step" in page
    assert "2.10 to 3.00 times" in page
    assert "Cold start: load 2.0 s." in page
    assert "15 of 16 golden prompts were answered as at the evaluation." in page


def test_auto_takes_the_adapter_where_a_slot_is_left_then_a_second_engine_where_there_is_room(tmp_path: Path) -> None:
    fill(tmp_path)
    auto, fit = load(tmp_path, SMALL + "delivery: {strategy: auto}\n"), made.fit()
    roomy = replace(fit, headroom_bytes=fit.usable_bytes * 3 // 4)
    assert strategy_of(roomy, 4, auto).strategy == "pool"
    assert strategy_of(roomy, 1, auto, fits_in=False).strategy == "pool"
    assert "the change is more than an adapter" in strategy_of(roomy, 1, auto, fits_in=False).why
    assert strategy_of(fit, 1, auto).why == "one engine holds both: 2 of 4 LoRA slots are taken with the candidate"
    sticky = load(tmp_path, SMALL + "delivery: {strategy: auto, sticky: x-session-id}\n")
    assert way_of(sticky, strategy_of(fit, 1, sticky)) == (
        "adapter: one engine holds both: 2 of 4 LoRA slots are taken with the candidate; sticky by x-session-id"
    )
    tight = replace(fit, headroom_bytes=0)
    assert "the engine loads adapters in turn" in strategy_of(tight, 4, auto).why
    assert strategy_of(tight, 4, auto, fits_in=False).strategy == "swap"
    swap = load(tmp_path, SMALL + "delivery: {strategy: swap}\n")
    assert [strategy_of(fit, 1, swap, fits_in=one).strategy for one in (False, True)] == ["swap", "adapter"]
    assert strategy_of(fit, 4, load(tmp_path, SMALL)).why == "the spec asks for it"
