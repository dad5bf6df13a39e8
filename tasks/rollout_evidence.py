"""The evidence table of a rollout as rows of text, as Markdown, and as a plot. Values in, text out; it judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.rollout.metrics import NAMED
from serving.rollout.model import Finding, Rollout, Step
from tasks.report_svg import COLOURS, DASHES, Plot, draw, name_rows, time_ticks

HEAD = ("step", "weight", "observed", "metric", "stable", "candidate", "interval", "evidence", "decision")
TONES = {"go_on": "good", "hold": "warn", "undo": "bad"}
WIDEST = 20.0  # ratio; a bound that nothing narrowed is drawn at the edge


@dataclass(frozen=True)
class Row:
    """One metric of one step, in words."""

    step: int
    weight: str
    observed: str
    metric: str
    stable: str
    candidate: str
    interval: str
    evidence: str
    decision: str
    note: str


def rows(steps: Sequence[Step]) -> tuple[Row, ...]:
    """The replayed requests' metrics of a step, then its clients'."""
    return tuple(
        row
        for number, step in enumerate(steps, 1)
        for row in (
            *(_row(number, step, one) for one in step.findings),
            *(_row(number, step, one, "clients: ") for one in (step.clients.findings if step.clients else ())),
        )
    )


def _row(number: int, step: Step, one: Finding, whose: str = "") -> Row:
    share = step.split
    observed = (
        f"{share.candidate / share.total:.1%} [{share.low:.1%}, {share.high:.1%}]" if share and share.total else "none"
    )
    return Row(
        number, f"{step.weight} %", observed, whose + one.metric.replace("_", " "), _value(one, one.stable),
        _value(one, one.candidate), _interval(one), f"{one.odds:.3g} of {one.needed:.0f}", one.decision, one.note,
    )  # fmt: skip


def _value(one: Finding, value: float | None) -> str:
    metric = NAMED.get(one.metric)
    if value is None:
        return "none"
    if metric is None or metric.event:
        return f"{value:.1%}"
    return f"{1000 * value:.0f} ms" if metric.unit == "s" else f"{value:.0f} tokens"


def _interval(one: Finding) -> str:
    """A ratio to stable where times or lengths were compared, else a share."""
    if one.low is None or one.high is None:
        return "none"
    metric = NAMED.get(one.metric)
    if metric is None or metric.event:
        return f"{one.low:.1%} to {one.high:.1%}"
    return f"{one.low:.2f} to {one.high:.2f} times"


def markdown(rollout: Rollout) -> str:
    """For Prefect's page: the steps, then the evidence."""
    steps = "\n".join(
        f"| {step.weight} % | {step.observed_share:.1%} | {step.candidate.requests} | {step.candidate.errors} "
        f"| {step.decision} | {_cell(step.reason)} |"
        for step in rollout.steps
    )
    found = [
        (
            str(row.step),
            row.weight,
            row.observed,
            row.metric,
            row.stable,
            row.candidate,
            row.interval,
            row.evidence,
            row.decision,
        )
        for row in rows(rollout.steps)
    ]
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in found)
    return (
        f"**{rollout.outcome}**: {rollout.reason}\n\n"
        f"| weight | observed | requests | failed | decision | reason |\n|---|---|---|---|---|---|\n{steps}\n\n"
        f"Requests: {rollout.traffic} by the release.\n\n"
        f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n{table}\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def compared(steps: Sequence[Step]) -> tuple[tuple[Step, Finding], ...]:
    """Those that have an interval of the ratio to stable."""
    return tuple(
        (step, one)
        for step in steps
        for one in step.findings
        if one.low is not None and one.high is not None and (metric := NAMED.get(one.metric)) and not metric.event
    )


def ratios(steps: Sequence[Step]) -> Plot:
    """The candidate's ratio to stable, with its interval at any look; the dashed line is "the same". At least one is compared."""
    found = compared(steps)
    bounds = [(max(one.low or 0, 1 / WIDEST), min(one.high or WIDEST, WIDEST)) for _, one in found]
    least, most = min(low for low, _ in bounds) / 1.1, max(high for _, high in bounds) * 1.1

    def paint(axes: Any, width: int) -> None:
        axes.set_xscale("log")
        axes.set_xlim(min(least, 0.9), max(most, 1.1))
        for row, ((low, high), (_, one)) in enumerate(zip(bounds, found, strict=True)):
            axes.plot([low, high], [row, row], color=COLOURS[TONES[one.decision]], linewidth=3, solid_capstyle="butt")
        axes.axvline(1, color=COLOURS["ink"], linewidth=1.6, linestyle=DASHES)
        axes.set_xticks(ticks := time_ticks(min(least, 0.9), max(most, 1.1)), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="x", linewidth=0.8)
        name_rows(axes, [f"{step.weight} % {one.metric.replace('_', ' ')}" for step, one in found], width)
        axes.set_xlabel("times stable (log scale)")

    told = "; ".join(
        f"{step.weight} % {one.metric.replace('_', ' ')}: {one.low:.2f} to {one.high:.2f}" for step, one in found
    )
    return draw("ratios", f"Candidate against stable. {told}.", 58 + 27 * len(found), paint)
