"""The report's plots: values in, inline SVG text out. Pure.

Colours, sizes and the way into the page are in report_svg.py. A plot's label says its numbers in words, for readers who
do not see it; the page has them in a table as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, TypeVar

from matplotlib.ticker import MaxNLocator

from evals.gate import RuleResult
from evals.stats import wilson_interval
from serving.rollout.model import SideStats, Step
from tasks.lora import TrainingPoint
from tasks.report_svg import COLOURS, DASHES, NARROW, WIDE, Plot, draw, name_rows, span, time_ticks

T = TypeVar("T")
GIB = 1024**3
MARKS_PER_STRIP = 100
CURVE_POINTS = 400
MOST_CELLS = {WIDE: 150, NARROW: 60}  # more items in one bar would be thinner than what separates them
SHARE_ALPHA = 0.05
SIDES = ("stable", "candidate")  # also their CSS variables
GOLDEN = 0.618034  # its multiples, modulo 1, spread evenly without chance
VERDICT_COLOURS = {"passed": "good", "rejected": "bad", "inconclusive": "warn"}


@dataclass(frozen=True)
class Marks:
    """How many items of one slice value changed; `same_right` have the full score 1 on both sides."""

    value: str
    gained: int
    same_right: int
    same_wrong: int
    lost: int

    @property
    def n(self) -> int:
        return self.gained + self.same_right + self.same_wrong + self.lost


@dataclass(frozen=True)
class Part:
    """A part of the GPU's memory in bytes; `colour` is a CSS variable of the page."""

    name: str
    size: int
    colour: str


def forest(of: str, rules: Sequence[RuleResult]) -> Plot:
    """One row a rule: the estimate, its interval, and the line that the rule holds it against.

    `of` names what the axis measures; a difference and a score do not share one, for a small interval would be a dot.
    """

    def paint(axes: Any, width: int) -> None:
        for row, rule in enumerate(rules):
            _interval(axes, row, rule.low, rule.estimate, rule.high, VERDICT_COLOURS[rule.verdict])
            _required(axes, row, rule.required)
        ends = [end for rule in rules for end in (rule.low, rule.high, rule.required)]
        axes.set_xlim(span([*ends, 0.0] if min(ends) < 0 else ends))
        axes.grid(axis="x", linewidth=0.8)
        name_rows(axes, [rule.name.replace("_", " ") for rule in rules], width)
        axes.set_xlabel(of)

    told = "; ".join(
        f"{rule.name} {rule.estimate:.3f}, interval {rule.low:.3f} to {rule.high:.3f}, required {rule.required:.3f}"
        for rule in rules
    )
    return draw(f"forest-{of.split()[0]}", f"Gate, {of}: {told}.", 58 + 34 * len(rules), paint)


def _interval(axes: Any, row: int, low: float, estimate: float, high: float, colour: str) -> None:
    axes.plot([low, high], [row, row], color=COLOURS[colour], linewidth=3, solid_capstyle="butt")
    axes.plot([estimate], [row], "o", color=COLOURS[colour], markersize=8)


def _required(axes: Any, row: int, at: float) -> None:
    axes.plot([at, at], [row - 0.38, row + 0.38], color=COLOURS["ink"], linewidth=2, linestyle=DASHES)


def item_marks(column: str, marks: Sequence[Marks]) -> Plot:
    """One bar a slice value, one cell an item."""

    def paint(axes: Any, width: int) -> None:
        for row, one in enumerate(marks):
            _cells(axes, row, one, one.n <= MOST_CELLS[width])
            beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 11.5}
            axes.annotate(f"+{one.gained} −{one.lost}", (one.n, row), color=COLOURS["muted"], **beside)
        most = max(one.n for one in marks)
        axes.set_xlim(0, most * (1.12 if width == WIDE else 1.32))
        axes.set_xticks([tick for tick in MaxNLocator(5, integer=True).tick_values(0, most) if tick <= most])
        name_rows(axes, [one.value for one in marks], width)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel("items")

    told = "; ".join(
        f"{one.value}: {one.gained} gained, {one.lost} lost, {one.same_right + one.same_wrong} the same"
        for one in marks
    )
    return draw("items", f"Items by {column}. {told}.", 54 + 27 * len(marks), paint)


def _cells(axes: Any, row: int, marks: Marks, separate: bool) -> None:
    counts = {"good": marks.gained, "good-soft": marks.same_right, "none": marks.same_wrong, "bad": marks.lost}
    left = 0
    for colour, count in counts.items():
        if count:
            axes.barh(row, count, left=left, height=0.74, color=COLOURS[colour], linewidth=0)
        left += count
    if separate:  # as one line with gaps, which is one path
        xs = [x for edge in range(1, marks.n) for x in (edge, edge, math.nan)]
        axes.plot(xs, [row - 0.38, row + 0.38, math.nan] * (len(xs) // 3), color=COLOURS["paper"], linewidth=1.2)


def loss_curve(curve: Sequence[TrainingPoint]) -> Plot:
    """`curve` has at least one point."""
    first, last = curve[0], curve[-1]

    def paint(axes: Any, width: int) -> None:
        points = spread(curve, CURVE_POINTS)
        axes.plot(
            [point.step for point in points],
            [point.loss for point in points],
            color=COLOURS["candidate"],
            linewidth=1.8,
        )
        axes.plot([last.step], [last.loss], "o", color=COLOURS["candidate"], markersize=6)
        place = {"xytext": (0, 10), "textcoords": "offset points", "ha": "right"}
        axes.annotate(f"{last.loss:.3f}", (last.step, last.loss), fontweight="bold", **place)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")

    label = f"Training loss: {first.loss:.3f} at step {first.step}, {last.loss:.3f} at step {last.step}."
    return draw("loss", label, 250, paint)


def memory_bar(parts: Sequence[Part], needed: int, uncertainty: int, usable: int) -> Plot:
    """One GPU's memory, in bytes. `needed` is what one sequence of max_model_len takes, with all parts."""

    def paint(axes: Any, width: int) -> None:
        left = 0.0
        for part in parts:
            size, edge = part.size / GIB, {"edgecolor": COLOURS["paper"], "linewidth": 0.8}
            axes.barh(0, size, left=left, height=0.6, color=COLOURS[part.colour], **edge)
            left += size
        axes.axvline(usable / GIB, ymin=0, ymax=0.8, color=COLOURS["ink"], linewidth=1.6, linestyle=DASHES)
        axes.text(usable / GIB, 0.62, f"usable {usable / GIB:.1f} GiB", ha="right", va="center", fontsize=11.5)
        whisker = {"fmt": "|", "elinewidth": 1.6, "capsize": 4, "markersize": 12}
        axes.errorbar([needed / GIB], [-0.55], xerr=[uncertainty / GIB], color=COLOURS["ink"], **whisker)
        axes.set_xlim(0, 1.01 * max(left, (needed + uncertainty) / GIB))
        axes.set_ylim(-0.85, 0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("GPU memory (GiB)")

    told = ", ".join(f"{part.name} {part.size / GIB:.2f} GiB" for part in parts)
    need = f"{needed / GIB:.2f} GiB, uncertain by {uncertainty / GIB:.2f} GiB, of {usable / GIB:.2f} GiB usable"
    return draw("memory", f"GPU memory: {told}. Needed: {need}.", 124, paint)


def traffic_share(steps: Sequence[Step]) -> Plot:
    """The asked weight, and the candidate's observed share with Wilson's 95 % interval."""

    def paint(axes: Any, width: int) -> None:
        for row, step in enumerate(steps):
            low, high = share_interval(step)
            _interval(axes, row, 100 * low, 100 * step.observed_share, 100 * high, "candidate")
            _required(axes, row, step.weight)
        axes.set_xlim(-2, 103)
        name_rows(axes, [f"{step.weight} %" for step in steps], width)
        axes.set_xlabel("candidate's share of requests (%)")

    told = "; ".join(f"asked {step.weight} %, observed {100 * step.observed_share:.1f} %" for step in steps)
    return draw("share", f"Traffic by step: {told}.", 58 + 34 * len(steps), paint)


def share_interval(step: Step) -> tuple[float, float]:
    """(0, 1) where no request was answered."""
    total = step.stable.requests + step.candidate.requests
    return wilson_interval(step.candidate.requests, total, SHARE_ALPHA) if total else (0.0, 1.0)


def strips(steps: Sequence[Step]) -> tuple[tuple[int, str, SideStats], ...]:
    """(weight, side's name, side) of each step and side that measured a first-token time, stable first."""
    sides = (
        (step.weight, name, side)
        for step in steps
        for name, side in zip(SIDES, (step.stable, step.candidate), strict=True)
    )
    return tuple((weight, name, side) for weight, name, side in sides if side.first_token_seconds)


def first_tokens(steps: Sequence[Step]) -> Plot:
    """One strip a step and side: a mark a request, a bar over the middle half of them, a line at the median."""
    rows = strips(steps)
    times = [[max(1.0, 1000 * seconds) for seconds in side.first_token_seconds] for _, _, side in rows]
    least, most = min(map(min, times)) / 1.1, max(map(max, times)) * 1.1

    def paint(axes: Any, width: int) -> None:
        axes.set_xscale("log")
        axes.set_xlim(least, most)
        for row, (_, name, _) in enumerate(rows):
            _strip(axes, row, times[row], COLOURS[name])
        axes.set_xticks(ticks := time_ticks(least, most), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="x", linewidth=0.8)
        name_rows(axes, [f"{weight} % {name}" for weight, name, _ in rows], width)
        axes.set_xlabel("time to first token (ms, log scale)")

    told = "; ".join(
        f"{weight} % {name}: median {1000 * median(side.first_token_seconds):.0f} ms" for weight, name, side in rows
    )
    return draw("tokens", f"Time to first token. {told}.", 58 + 27 * len(rows), paint)


def _strip(axes: Any, row: int, times: Sequence[float], colour: str) -> None:
    low, _, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else (times[0],) * 3
    axes.barh(row, high - low, left=low, height=0.66, color=colour, alpha=0.22, linewidth=0)
    marks = spread(sorted(times), MARKS_PER_STRIP)
    heights = [row + 0.5 * ((GOLDEN * place) % 1 - 0.5) for place in range(len(marks))]
    axes.plot(marks, heights, "o", color=colour, markersize=3.4, alpha=0.65, markeredgewidth=0)
    axes.plot([median(times)] * 2, [row - 0.38, row + 0.38], color=COLOURS["ink"], linewidth=2)


def spread(values: Sequence[T], most: int) -> tuple[T, ...]:
    """At most `most` of the values, evenly spaced by place; the first and the last are among them."""
    if len(values) <= most:
        return tuple(values)
    return tuple(values[round(place * (len(values) - 1) / (most - 1))] for place in range(most))
