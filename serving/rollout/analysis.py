"""May the canary go on? Pure: the step's requests in, a decision with its reason and evidence out. It may be asked after every request.

undo: one of the ten metrics is shown to be worse than stable's at the same time by more than is tolerated, or an absolute limit is
shown to be passed. All of that together happens to a harmless candidate in at most `alpha` of the rollouts (Bonferroni).
go_on: enough requests, the split is shown, and for each time it is shown that it is not REGRESSION times what is tolerated; a
candidate that slow passes with a probability of at most `beta`. hold: neither. No data never passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from serving.rollout.bets import Array, Flags, bets_on_events, bets_on_limit, bets_on_times
from serving.rollout.findings import EventSide, finding_of_event, finding_of_limit, finding_of_time
from serving.rollout.golden import MOST_DIFFERENT
from serving.rollout.metrics import CLIENT_METRICS, METRICS, NAMED, Metric, logs, shifted, values
from serving.rollout.model import Decision, Finding, Sample, Share
from serving.rollout.share import exact_interval, said_differently, share_of

REGRESSION = 1.5  # times what is tolerated: so much slower must be found
SLO_SHARE = 0.05  # a p95: so many may take longer
TIMES = ("first_token", "inter_token", "per_token")
BALANCED = 0.999  # confidence that the measured requests are drawn by the weight


@dataclass(frozen=True)
class AnalysisPolicy:
    """Limits of one rollout. `max_first_token_ratio` is tolerated of each time against stable's.

    `first_token_floor` in seconds. `steps` of the rollout share `alpha`. `slo`: (metric, seconds) that at most 5 % may pass.
    `golden`: some prompts have an answer on record, from which at most MOST_DIFFERENT of the candidate's may differ.
    """

    min_requests: int
    max_error_rate: float
    max_first_token_ratio: float
    first_token_floor: float = 0.05
    steps: int = 3
    alpha: float = 0.05
    beta: float = 0.05
    slo: tuple[tuple[str, float], ...] = ()
    golden: bool = False
    metrics: tuple[Metric, ...] = METRICS

    @property
    def each(self) -> float:
        """The share of alpha of one test: the metrics in the steps that have a stable side, and the limits in all steps."""
        return self.alpha / (
            len(self.metrics) * max(self.steps - 1, 1) + (1 + len(self.slo) + self.golden) * self.steps
        )


@dataclass(frozen=True)
class Judgement:
    """`findings` hold the evidence of each metric that was judged."""

    decision: Decision
    reason: str
    split: Share
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Seen:
    """A step's requests as columns."""

    samples: Sequence[Sample]
    canary: Flags
    weight: float
    policy: AnalysisPolicy

    def of(self, canary: bool) -> list[Sample]:
        return [sample for sample, mine in zip(self.samples, self.canary, strict=True) if mine == canary]


def judge(samples: Sequence[Sample], stable: str, candidate: str, weight: int, policy: AnalysisPolicy) -> Judgement:
    """One look at a step's requests, in order of arrival, replayed at the candidate's weight in percent."""
    lost = [sample for sample in samples if sample.version not in (stable, candidate)]
    mine = [sample for sample in samples if sample.version in (stable, candidate)]
    canary = np.array([sample.version == candidate for sample in mine], dtype=bool)
    seen, split = Seen(mine, canary, weight / 100, policy), share_of(mine, stable, candidate, weight)
    if lost:
        return Judgement("undo", f"{len(lost)} requests were answered by neither version: {lost[0].error}", split, ())
    if other := said_differently(mine):
        said = f"the gateway says {other.version}, the engine answered as {other.served}"
        return Judgement("undo", said, split, ())
    findings = (*_limits(seen), *(_compared(seen) if 0 < weight < 100 else ()))
    bad = next((one for one in findings if one.decision == "undo"), None)
    if bad:
        return Judgement("undo", bad.note, split, _with_intervals(seen, findings))
    waiting = _missing(seen, split) or next((one.note for one in findings if one.decision == "hold"), "")
    if waiting:
        return Judgement("hold", waiting, split, findings)
    return Judgement("go_on", _summary(seen, findings), split, _with_intervals(seen, findings))


def judge_clients(
    samples: Sequence[Sample], stable: str, candidate: str, weight: int, policy: AnalysisPolicy
) -> tuple[Finding | None, tuple[Finding, ...]]:
    """(what undoes, all findings) of clients' own requests: the same bets on other metrics, with an alpha of their own."""
    canary = np.array([sample.version == candidate for sample in samples], dtype=bool)
    own = replace(policy, metrics=CLIENT_METRICS, slo=(), golden=False)
    seen = Seen(samples, canary, weight / 100, own)
    findings = (*_limits(seen), *(_compared(seen) if 0 < weight < 100 else ()))
    return next((one for one in findings if one.decision == "undo"), None), findings


def _missing(seen: Seen, split: Share) -> str:
    """What is needed before a step can pass; empty where nothing is."""
    needed, asked = seen.policy.min_requests, seen.of(True)
    if len(asked) < needed or not asked:
        return f"the candidate answered {len(asked)} requests, required {max(needed, 1)}"
    if seen.weight < 1 and len(seen.of(False)) < needed:
        return f"stable answered {len(seen.of(False))} requests, required {needed}"
    if all(sample.first_token_seconds is None for sample in asked):
        return "no candidate request measured its first-token time"
    if not split.shown:
        seen_share = f"{split.candidate} of {split.total} answers, interval {split.low:.1%} to {split.high:.1%}"
        return f"the split is not shown: asked {split.asked:.0%}, {seen_share}"
    return ""


def _summary(seen: Seen, findings: Sequence[Finding]) -> str:
    failed = sum(not sample.ok for sample in seen.of(True))
    first = next((one for one in findings if one.metric == "first_token" and one.stable is not None), None)
    said = f"{len(seen.of(True))} requests, {failed} failed"
    if first is None or first.candidate is None or first.stable is None:
        return said
    return f"{said}; median first token {first.candidate * 1000:.0f} ms against {first.stable * 1000:.0f} ms of stable"


def _limits(seen: Seen) -> list[Finding]:
    """Failures against what is allowed, and the times that were promised, by the candidate's own requests."""
    policy, found = seen.policy, []
    rows = [("errors", policy.max_error_rate, values(NAMED["errors"], seen.samples), 0.0)]
    for name, seconds in policy.slo:
        times = values(NAMED[name], seen.samples)
        rows.append((name, SLO_SHARE, np.where(np.isnan(times), np.nan, times > seconds), seconds))
    if policy.golden:
        rows.append(("different", MOST_DIFFERENT, values(NAMED["different"], seen.samples), 0.0))
    for name, allowed, events, seconds in rows:
        wealth = bets_on_limit(events, seen.canary, allowed)
        side = EventSide.of(events[seen.canary])
        found.append(finding_of_limit(NAMED[name], side, allowed, seconds, _odds(wealth), 1 / policy.each))
    return found


def _compared(seen: Seen) -> list[Finding]:
    """Each metric against stable's requests of the same step."""
    return [_event(seen, metric) if metric.event else _time(seen, metric) for metric in seen.policy.metrics]


def _event(seen: Seen, metric: Metric) -> Finding:
    events = values(metric, seen.samples)
    odds = _odds(bets_on_events(events, seen.canary, seen.weight))
    sides = [EventSide.of(events[mask]) for mask in (~seen.canary, seen.canary)]
    return finding_of_event(metric, sides[0], sides[1], odds, 1 / seen.policy.each)


def _time(seen: Seen, metric: Metric) -> Finding:
    policy = seen.policy
    allowed = metric.ratio or policy.max_first_token_ratio
    floor = policy.first_token_floor if metric.name == "first_token" else metric.floor
    found = values(metric, seen.samples)
    if not _balanced(found, seen):
        return finding_of_time(
            metric,
            found,
            seen.canary,
            allowed,
            0,
            1 / policy.each,
            None,
            "not compared: one version has it far more often",
        )
    levels = logs(found, floor)
    worse = _odds(bets_on_times(shifted(levels, seen.canary, allowed), seen.canary, seen.weight))
    proven = True
    if metric.name in TIMES and np.isfinite(found[seen.canary]).any():
        fine = bets_on_times(-shifted(_finite(levels), seen.canary, allowed * REGRESSION), seen.canary, seen.weight)
        proven = _odds(fine) >= 1 / policy.beta
    return finding_of_time(metric, found, seen.canary, allowed, worse, 1 / policy.each, proven, "")


def _finite(levels: Array) -> Array:
    """A failed request is no evidence that the candidate is fast enough."""
    return np.where(np.isinf(levels), np.nan, levels)


def _balanced(found: Array, seen: Seen) -> bool:
    """Whether the requests with a value were drawn by the weight; else the bet on who answered is no fair game."""
    measured = ~np.isnan(found)
    low, high = exact_interval(int((measured & seen.canary).sum()), int(measured.sum()), BALANCED)
    return low <= seen.weight <= high


def _with_intervals(seen: Seen, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Where times and lengths were compared; the search takes too long for every look."""
    found = []
    for one in findings:
        metric = NAMED.get(one.metric)
        bounds = ratio_interval(seen, metric) if metric and not metric.event and one.low is None else None
        found.append(replace(one, low=bounds[0], high=bounds[1]) if bounds else one)
    return tuple(found)


def ratio_interval(seen: Seen, metric: Metric) -> tuple[float, float] | None:
    """The ratios to stable that are not refused, with 1 - alpha at whatever request one looks. None: nothing was measured.

    Where every ratio is refused, because the candidate's times are not stable's times one factor, it spans the two ends: that is
    wider than what is left, so it promises no more.
    """
    floor = seen.policy.first_token_floor if metric.name == "first_token" else metric.floor
    levels = logs(values(metric, seen.samples), floor)
    if not np.isfinite(levels[seen.canary]).any() or not np.isfinite(levels[~seen.canary]).any():
        return None
    low, high = sorted((_bound(levels, seen, 1.0), _bound(levels, seen, -1.0)))
    return low, high


def _bound(levels: Array, seen: Seen, sign: float) -> float:
    """The end of the interval on the side of `sign`, by bisection: wealth falls as the ratio that is tolerated grows."""
    inner, outer = 5.0 * sign, -5.0 * sign
    for _ in range(14):  # to a thousandth
        middle = (inner + outer) / 2
        moved = sign * shifted(levels, seen.canary, exp(middle))
        refused = bets_on_times(moved, seen.canary, seen.weight).max() >= -log(seen.policy.alpha / 2)
        inner, outer = (inner, middle) if refused else (middle, outer)
    return exp((inner + outer) / 2)


def _odds(wealth: Array) -> float:
    """The highest wealth so far, at most 1e12."""
    return float(np.exp(min(wealth.max(initial=0.0), log(1e12))))
