"""The report's plots: values in, inline SVG text out. Pure.

Each plot is drawn twice, for a wide page and for a phone, and its colours are the page's CSS variables, so that light and
dark both fit. It knows no layout but its own, reads no file, and sets no state that outlives a call.
"""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from evals.gate import RuleResult
from evals.stats import wilson_interval
from serving.rollout.model import SideStats, Step
from tasks.lora import TrainingPoint

WIDE, NARROW = 880, 344  # CSS pixels at which text has its own size
LABEL_CHARACTERS = {WIDE: 28, NARROW: 15}
MARKS_PER_STRIP = 100
MOST_CELLS = {WIDE: 150, NARROW: 60}  # more items in one bar would be thinner than their separators
SHARE_ALPHA = 0.05

# CSS variable of the page → what Matplotlib draws in its place; every value is different so that it can be found again
COLOURS = {
    "ink": "#1c2126", "muted": "#5c6670", "line": "#d5dade", "paper": "#fefefe", "candidate": "#0b63b5", "stable": "#7a8590",
    "good": "#0a7a5c", "good-soft": "#a5d9c8", "bad": "#c2410c", "warn": "#a16207", "none": "#d9dde1",
    "part-1": "#0b5cad", "part-2": "#7c3aad", "part-3": "#c2570c", "part-4": "#b08900", "part-5": "#64707b", "part-6": "#0f8a7e",
    "part-7": "#a8ddd5", "part-8": "#e6e9ec",
}  # fmt: skip
VERDICT_COLOURS = {"passed": "good", "rejected": "bad", "inconclusive": "warn"}
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "liftlock", "text.parse_math": False, "font.size": 12.5, "axes.linewidth": 0.8,
    "axes.edgecolor": COLOURS["line"], "axes.labelcolor": COLOURS["muted"], "text.color": COLOURS["ink"], "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"], "xtick.labelcolor": COLOURS["muted"], "ytick.labelcolor": COLOURS["ink"], "grid.color": COLOURS["line"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.labelsize": 12,
}  # fmt: skip
Paint = Callable[[Any, int], None]  # draws on the axes for one of the two widths


@dataclass(frozen=True)
class Plot:
    """`label` says in words what the two SVG elements show."""

    label: str
    wide: str
    narrow: str


@dataclass(frozen=True)
class Marks:
    """How many items of one slice value changed; `same_right` have the full score on both sides."""

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
    """A part of the GPU's memory; `colour` is a CSS variable of the page."""

    name: str
    size: int
    colour: str


def forest(rules: Sequence[RuleResult]) -> Plot:
    """One row a rule: estimate with interval, and a bar where the rule's line is."""

    def paint(axes: Any, width: int) -> None:
        axes.axvline(0, color=COLOURS["line"], linewidth=1)
        for row, rule in enumerate(rules):
            colour = COLOURS[VERDICT_COLOURS[rule.verdict]]
            axes.plot([rule.required] * 2, [row - 0.36, row + 0.36], color=COLOURS["ink"], linewidth=2, linestyle=(0, (2, 1)))
            axes.plot([rule.low, rule.high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot([rule.estimate], [row], "o", color=colour, markersize=8)
        ends = [0.0, *(value for rule in rules for value in (rule.low, rule.high, rule.required))]
        pad = 0.04 * ((max(ends) - min(ends)) or 1)
        axes.set_xlim(min(ends) - pad, max(ends) + pad)
        _rows(axes, [rule.name for rule in rules], width)
        axes.set_xlabel("difference, score or rate")

    told = [f"{rule.name} {rule.estimate:.3f}, interval {rule.low:.3f} to {rule.high:.3f}, required {rule.required:.3f}" for rule in rules]
    return _plot("forest", f"Gate rules: {'; '.join(told)}.", 62 + 34 * len(rules), paint)


def item_marks(column: str, marks: Sequence[Marks]) -> Plot:
    """One cell an item, one bar a slice value."""

    def paint(axes: Any, width: int) -> None:
        for row, one in enumerate(marks):
            left = 0
            for count, colour in ((one.gained, "good"), (one.same_right, "good-soft"), (one.same_wrong, "none"), (one.lost, "bad")):
                if count:
                    axes.barh(row, count, left=left, height=0.74, color=COLOURS[colour], linewidth=0)
                left += count
            if one.n <= MOST_CELLS[width]:
                edges = range(1, one.n)
                xs, ys = [x for k in edges for x in (k, k, math.nan)], [y for _ in edges for y in (row - 0.38, row + 0.38, math.nan)]
                axes.plot(xs, ys, color=COLOURS["paper"], linewidth=1)
            axes.text(one.n, row, f"  +{one.gained} −{one.lost}", va="center", color=COLOURS["muted"], fontsize=11.5)
        axes.set_xlim(0, max(one.n for one in marks) * (1.14 if width == WIDE else 1.3))
        _rows(axes, [one.value for one in marks], width)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("items")
        axes.spines["bottom"].set_visible(False)

    told = [f"{one.value}: {one.gained} gained, {one.lost} lost, {one.same_right + one.same_wrong} the same" for one in marks]
    return _plot("items", f"Items by {column}. {'; '.join(told)}.", 56 + 27 * len(marks), paint)


def loss_curve(curve: Sequence[TrainingPoint]) -> Plot:
    """`curve` has at least one point."""
    last = curve[-1]

    def paint(axes: Any, width: int) -> None:
        axes.plot([point.step for point in curve], [point.loss for point in curve], color=COLOURS["candidate"], linewidth=1.8)
        axes.plot([last.step], [last.loss], "o", color=COLOURS["candidate"], markersize=6)
        axes.annotate(f"{last.loss:.3f}", (last.step, last.loss), (0, 9), textcoords="offset points", ha="right", fontweight="bold")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(axis="y", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss (nats per token)")

    return _plot("loss", f"Training loss: {curve[0].loss:.3f} at step {curve[0].step}, {last.loss:.3f} at step {last.step}.", 250, paint)


def memory_bar(parts: Sequence[Part], needed: int, uncertainty: int, usable: int) -> Plot:
    """All of one GPU's memory in bytes. `needed` with its uncertainty is what one sequence of max_model_len takes."""
    gib = 1024**3

    def paint(axes: Any, width: int) -> None:
        left = 0.0
        for part in parts:
            axes.barh(0, part.size / gib, left=left, height=0.6, color=COLOURS[part.colour], edgecolor=COLOURS["paper"], linewidth=0.8)
            left += part.size / gib
        axes.axvline(usable / gib, ymin=0, ymax=0.88, color=COLOURS["ink"], linewidth=1.6, linestyle=(0, (2, 1)))
        axes.text(usable / gib, 0.78, f"usable {usable / gib:.1f} ", ha="right", va="center", fontsize=11.5)
        axes.errorbar([needed / gib], [-0.52], xerr=[uncertainty / gib], fmt="|", color=COLOURS["ink"], elinewidth=1.6, capsize=4, markersize=12)
        axes.set_ylim(-0.8, 1.0)
        axes.set_xlim(0, max(left, (needed + uncertainty) / gib) * 1.01)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("memory of the GPU (GiB)")

    told = ", ".join(f"{part.name} {part.size / gib:.2f} GiB" for part in parts)
    label = f"GPU memory: {told}. Needed {needed / gib:.2f} GiB, uncertain by {uncertainty / gib:.2f} GiB, of {usable / gib:.2f} GiB usable."
    return _plot("memory", label, 118, paint)


def traffic_share(steps: Sequence[Step]) -> Plot:
    """Asked weight against the candidate's observed share with Wilson's 95 % interval."""

    def paint(axes: Any, width: int) -> None:
        for row, step in enumerate(steps):
            axes.plot([step.weight] * 2, [row - 0.36, row + 0.36], color=COLOURS["ink"], linewidth=2, linestyle=(0, (2, 1)))
            low, high = share_interval(step)
            axes.plot([100 * low, 100 * high], [row, row], color=COLOURS["candidate"], linewidth=3, solid_capstyle="butt")
            axes.plot([100 * step.observed_share], [row], "o", color=COLOURS["candidate"], markersize=8)
        axes.set_xlim(-2, 103)
        _rows(axes, [f"{step.weight} %" for step in steps], width)
        axes.set_xlabel("candidate's share of requests (%)")

    told = [f"asked {step.weight} %, observed {100 * step.observed_share:.1f} %" for step in steps]
    return _plot("share", f"Traffic by step: {'; '.join(told)}.", 58 + 34 * len(steps), paint)


def share_interval(step: Step) -> tuple[float, float]:
    """(0, 1) where no request was answered."""
    total = step.stable.requests + step.candidate.requests
    return wilson_interval(step.candidate.requests, total, SHARE_ALPHA) if total else (0.0, 1.0)


def first_tokens(steps: Sequence[Step]) -> Plot:
    """One strip a step and side: a mark a request (at most MARKS_PER_STRIP), the middle half as a bar, the median as a line."""
    rows = [(step, side, colour) for step in steps for side, colour in ((step.stable, "stable"), (step.candidate, "candidate")) if side.first_token_seconds]

    def paint(axes: Any, width: int) -> None:
        for row, (_, side, colour) in enumerate(rows):
            times = [max(1.0, 1000 * seconds) for seconds in side.first_token_seconds]
            low, _, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else (times[0],) * 3
            axes.barh(row, high - low, left=low, height=0.62, color=COLOURS[colour], alpha=0.22, linewidth=0)
            marks = sampled(times, MARKS_PER_STRIP)
            heights = [row + 0.46 * ((0.618034 * k) % 1 - 0.5) for k in range(len(marks))]  # golden ratio: spread evenly, no chance
            axes.plot(marks, heights, "o", color=COLOURS[colour], markersize=3.4, alpha=0.65, markeredgewidth=0)
            axes.plot([median(times)] * 2, [row - 0.36, row + 0.36], color=COLOURS["ink"], linewidth=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", linewidth=0.8)
        _rows(axes, [f"{step.weight} % {colour}" for step, _, colour in rows], width)
        axes.set_xlabel("first token (ms, log scale)")

    told = [f"{step.weight} % {colour}: median {1000 * median(side.first_token_seconds):.0f} ms of {len(side.first_token_seconds)}" for step, side, colour in rows]
    return _plot("tokens", f"First-token times. {'; '.join(told)}.", 58 + 27 * len(rows), paint)


def has_times(side: SideStats) -> bool:
    return bool(side.first_token_seconds)


def sampled(values: Sequence[float], most: int) -> tuple[float, ...]:
    """At most `most` values, evenly spaced by rank; the least and the greatest are always among them."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return tuple(ordered)
    return tuple(ordered[round(k * (len(ordered) - 1) / (most - 1))] for k in range(most))
