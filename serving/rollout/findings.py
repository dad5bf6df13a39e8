"""Rows of the evidence table with the sentence that a person reads. Pure; the evidence is computed in analysis.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.rollout.bets import Array, Flags
from serving.rollout.metrics import Metric
from serving.rollout.model import Decision, Finding
from serving.rollout.share import exact_interval

CONFIDENCE = 0.95
SAID = {"errors": "failed", "different": "were answered otherwise than on the release's record"}
MOST_EXCESS = 0.05  # so many more events may be chance; above it the step waits for the evidence to settle it


@dataclass(frozen=True)
class EventSide:
    """Events of one version, and the requests that say whether there was one."""

    hits: int
    total: int

    @classmethod
    def of(cls, events: Array) -> EventSide:
        known = events[~np.isnan(events)]
        return cls(int(known.sum()), len(known))

    @property
    def share(self) -> float | None:
        return self.hits / self.total if self.total else None


def finding_of_limit(
    metric: Metric, side: EventSide, allowed: float, seconds: float, odds: float, needed: float
) -> Finding:
    """`seconds` above 0: the events are times beyond it."""
    low, high = exact_interval(side.hits, side.total, CONFIDENCE)
    what = f"took longer than {seconds:g} s for the {metric.said}" if seconds else SAID[metric.name]
    said = f"{side.hits} of {side.total} candidate requests {what} ({side.share or 0:.1%}), allowed {allowed:.1%}"
    undo = odds >= needed
    over = (side.share or 0.0) > allowed
    name = f"{metric.name}_limit"
    decision: Decision = "undo" if undo else "hold" if over else "go_on"
    return Finding(name, allowed, side.share, low, high, odds, needed, decision, said)


def finding_of_event(metric: Metric, stable: EventSide, candidate: EventSide, odds: float, needed: float) -> Finding:
    low, high = exact_interval(candidate.hits, candidate.total, CONFIDENCE)
    said = (
        f"{metric.said}: {candidate.hits} of {candidate.total} of the candidate against "
        f"{stable.hits} of {stable.total} of stable (evidence {odds:.0f} to 1, required {needed:.0f})"
    )
    excess = (candidate.share or 0.0) - (stable.share or 0.0)
    decision: Decision = "undo" if odds >= needed else "hold" if excess > MOST_EXCESS else "go_on"
    if decision == "hold":
        said = f"not settled: {said}"
    return Finding(metric.name, stable.share, candidate.share, low, high, odds, needed, decision, said)


def finding_of_time(
    metric: Metric,
    found: Array,
    canary: Flags,
    allowed: float,
    odds: float,
    needed: float,
    proven: bool | None,
    note: str,
) -> Finding:
    """`proven`: it is shown not to be far slower; None: it could not be compared."""
    stable, candidate = (_middle(found[mask]) for mask in (~canary, canary))
    said = note or _told(metric, stable, candidate, allowed)
    undo = proven is not None and odds >= needed
    decision: Decision = "undo" if undo else "hold" if proven is False else "go_on"
    if decision == "hold":
        said = f"not yet shown to be fast enough: {said}"
    shown = [
        None if value is None else 1 / value if metric.name == "shorter" else value for value in (stable, candidate)
    ]
    return Finding(metric.name, shown[0], shown[1], None, None, odds, needed, decision, said)


def _middle(found: Array) -> float | None:
    """The median of the answered requests."""
    answered = found[np.isfinite(found)]
    return float(np.median(answered)) if len(answered) else None


def _told(metric: Metric, stable: float | None, candidate: float | None, allowed: float) -> str:
    if stable is None or candidate is None:
        return f"{metric.said}: {'stable' if stable is None else 'the candidate'} has none"
    values: Sequence[float] = (stable, candidate) if metric.name != "shorter" else (1 / stable, 1 / candidate)
    shown = [f"{value * 1000:.0f} ms" if metric.unit == "s" else f"{value:.0f} tokens" for value in values]
    ratio = candidate / stable if stable else float("inf")
    return f"median {metric.said} {shown[1]} against {shown[0]} of stable: {ratio:.2f} times, allowed {allowed:.2f}"
