"""The counts behind the report's tables and plots, against counts made by hand; and what the plots draw them with."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.gate import RuleResult
from evals.report import EvalReport
from tasks import report_plots as plots
from tasks import report_rows as rows
from tasks.artifacts import EvalPair, TrainingPoint
from tasks.report_plots import Marks, spread
from tasks.report_svg import COLOURS, Plot, span, time_ticks
from tests import fix_outcome as made
from tests.fix_reports import make_report
from tests.fix_tickets import pair_of


def small_pair() -> EvalPair:
    """Team a: gained, same right, lost; team b: same wrong, and a graded item that rose from 0.2 to 0.6."""

    def side(model: str, scores: tuple[float, ...]) -> EvalReport:
        report = make_report(scores, model=model)
        items = (
            replace(item, answer=f"{model} says", slices=(("team", team), ("length", "short")))
            for item, team in zip(report.items, "aaabb", strict=True)
        )
        return replace(report, items=tuple(items))

    return pair_of(side("new", (1, 1, 0, 0, 0.6)), side("old", (0, 1, 1, 0, 0.2)), None)


def test_marks_count_each_item_once() -> None:
    column, marks = rows.item_marks(small_pair())
    assert column == "team"
    assert marks == (Marks("a", 1, 1, 0, 1), Marks("b", 1, 0, 1, 0))


def test_items_without_slices_are_one_row() -> None:
    pair = small_pair()
    bare = [
        replace(side, items=tuple(replace(item, slices=()) for item in side.items))
        for side in (pair.candidate, pair.baseline)
    ]
    assert rows.item_marks(replace(pair, candidate=bare[0], baseline=bare[1])) == (
        "all items",
        (Marks("all", 2, 1, 1, 1),),
    )


def test_slices_have_both_means_in_the_items_order_of_columns() -> None:
    found = rows.slices(small_pair())
    assert list(found) == ["team", "length"]
    assert [(row.value, row.n, row.baseline, row.candidate) for row in found["team"]] == [
        ("a", 3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("b", 2, pytest.approx(0.1), pytest.approx(0.3)),
    ]
    assert found["length"][0].difference == pytest.approx(0.52 - 0.44)


def test_newly_failing_items_have_both_answers() -> None:
    assert rows.newly_failing(small_pair()) == (
        rows.Flip("item-002", "team a, length short", "target", "old says", "new says"),
    )


def test_cases_are_counted_by_group_and_the_newly_failing_come_first() -> None:
    new, old = (
        make_report((1, 1), {"a": "failed", "b": "failed", "c": "errored", "d": "passed"}),
        make_report((1, 1), {"a": "failed", "b": "passed", "c": "passed", "d": "errored"}),
    )
    pair = pair_of(new, old, None)
    assert rows.case_groups(pair) == (rows.CaseGroup("format", n=4, baseline=2, passed=1, failed=2, errored=1),)
    assert [(one.case.id, one.before, one.is_new) for one in rows.unhappy_cases(pair)] == [
        ("b", "passed", True),
        ("a", "failed", False),
        ("c", "passed", False),
    ]


def test_parts_of_the_memory_add_up_to_the_card() -> None:
    fit = made.fit()
    parts = {part.name: part.size // made.MIB for part in rows.fit_parts(fit)}
    assert sum(parts.values()) == 22800
    assert parts["KV cache of one sequence of 4096 tokens"] == 360
    assert parts["outside gpu_memory_utilization"] == 22800 - 20954
    assert rows.needed_bytes(fit) == (257 + 45 + 792 + 1150 + 250 + 360) * made.MIB


def test_a_model_that_needs_more_than_is_usable_has_no_headroom_part() -> None:
    parts = rows.fit_parts(replace(made.fit(), headroom_bytes=-500 * made.MIB))
    assert [part.name for part in parts][-2:] == [
        "KV cache of one sequence of 4096 tokens",
        "outside gpu_memory_utilization",
    ]
    assert sum(part.size for part in parts) == 22800 * made.MIB


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (RuleResult("non_inferior", 0, 0, 0, -0.02, "passed"), "interval > −0.020"),
        (RuleResult("floor", 0, 0, 0, 0.8, "passed"), "interval > 0.800"),
        (RuleResult("newly_failing_cases", 0, 0, 0, 2, "passed"), "≤ 2"),
    ],
)
def test_requirements_in_symbols(rule: RuleResult, said: str) -> None:
    assert rows.required(rule) == said


def test_many_slice_values_share_a_bar() -> None:
    """Value 0 has two items, the 49 others have one: 40 bars stay, of 10 values the items are counted together."""
    report = make_report((1.0,) * 51, {})
    items = tuple(replace(item, slices=(("team", f"{place % 50:02}"),)) for place, item in enumerate(report.items))
    _, marks = rows.item_marks(pair_of(replace(report, items=items), replace(report, items=items), None))
    assert len(marks) == 41
    assert marks[0] == Marks("00", 0, 2, 0, 0)
    assert marks[-1] == Marks("10 other values", 0, 10, 0, 0)


def test_rules_on_one_axis_have_one_unit() -> None:
    decision = made.champion().decision
    assert decision
    names = [[rule.name for rule in rules] for rules in rows.plotted_rules(decision).values()]
    assert names == [["superior"], ["floor", "case_pass_rate"]]


@given(st.lists(st.integers(), min_size=1), st.integers(2, 20))
def test_spread_keeps_both_ends_and_the_order(values: list[int], most: int) -> None:
    found = spread(values, most)
    assert len(found) == min(len(values), most)
    assert (found[0], found[-1]) == (values[0], values[-1])
    places = iter(values)
    assert all(value in places for value in found)


@given(st.floats(1, 1e5), st.floats(1.21, 1e4))
def test_a_time_axis_has_at_least_two_ticks(least: float, ratio: float) -> None:
    found = time_ticks(least, least * ratio)
    assert len(found) >= 2
    assert all(least <= tick <= least * ratio for tick in found)


@given(st.lists(st.floats(-1, 1), min_size=1))
def test_an_axis_shows_all_values(values: list[float]) -> None:
    low, high = span(values)
    assert low < min(values) and max(values) < high


def test_the_share_has_wilsons_interval() -> None:
    """10 of 100: 0.0552 to 0.1744 (Newcombe, Statistics in Medicine 17 (1998), method 3, has the same formula)."""
    assert plots.share_interval(made.step(10, 90, 10)) == pytest.approx((0.0552, 0.1744), abs=5e-5)
    assert plots.share_interval(made.step(10, 0, 0)) == (0.0, 1.0)


def test_sides_without_times_have_no_strip() -> None:
    steps = (made.step(50, 3, 4), made.step(100, 0, 5))
    found = [(weight, name, len(side.first_token_seconds)) for weight, name, side in plots.strips(steps)]
    assert found == [(50, "stable", 3), (50, "candidate", 4), (100, "candidate", 5)]


def check_plot(plot: Plot) -> bool:
    """XML by itself, in the page's colours only, with nothing from Matplotlib's own fonts."""
    for svg in (plot.wide, plot.narrow):
        assert ElementTree.fromstring(svg).tag == "svg"  # noqa: S314
        assert not any(colour in svg for colour in COLOURS.values())
        assert "font-family" not in svg and "var(--" in svg
    return True


@settings(max_examples=10)
@given(st.text(min_size=1), st.lists(st.integers(0, 200), min_size=4, max_size=4).filter(any))
def test_item_marks_draw_any_name_and_count(name: str, counts: list[int]) -> None:
    assert check_plot(plots.item_marks(name, (Marks(name, *counts),)))


@pytest.mark.parametrize("times", [(0.0,), (0.1, 0.1), (0.2, 0.21, 9.0)])
def test_first_tokens_draw_any_times(times: tuple[float, ...]) -> None:
    step = made.step(50, 0, 0)
    assert check_plot(
        plots.first_tokens((replace(step, candidate=replace(step.candidate, first_token_seconds=times)),))
    )


def test_labels_say_the_numbers() -> None:
    loss = plots.loss_curve((TrainingPoint(1, 9, 2.5, 0.1), TrainingPoint(9, 9, 0.125, 1.0)))
    assert check_plot(loss)
    assert loss.label == "Training loss: 2.500 at step 1, 0.125 at step 9."
    assert "0.125" in loss.wide and "0.125" in loss.narrow
    share = plots.traffic_share((made.step(25, 30, 10),))
    assert check_plot(share)
    assert share.label == "Traffic by step: asked 25 %, observed 25.0 %."
    rule = RuleResult("floor", 0.9, 0.85, 0.95, 0.8, "passed")
    forest = plots.forest("mean score", (rule,))
    assert check_plot(forest)
    assert forest.label == "Gate, mean score: floor 0.900, interval 0.850 to 0.950, required 0.800."
    memory = plots.memory_bar((plots.Part("weights", 3 * 1024**3, "part-1"),), 4 * 1024**3, 1024**3, 5 * 1024**3)
    assert check_plot(memory)
    assert memory.label.endswith("weights 3.00 GiB. Needed: 4.00 GiB, uncertain by 1.00 GiB, of 5.00 GiB usable.")
