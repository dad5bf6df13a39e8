"""The verdict on a candidate: its report against a baseline's, paired by item id. Pure.

Every rule has to pass, so more rules do not raise the chance of a false promotion. With rule "superior" a candidate
that is no better passes with probability of about alpha / 2, because the interval is two-sided.
It fails closed: reports that are broken or not comparable raise, and what cannot be judged is inconclusive.
It does not evaluate anything, and does not stop early: it is asked once, with all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from evals.fingerprint import check_comparable
from evals.report import EvalReport, ReportInvalid, check
from evals.stats import mean_interval, paired_difference, wilson_interval

Verdict = Literal["passed", "rejected", "inconclusive"]
Judged = tuple["RuleResult", str]  # a rule's outcome and its sentence

SEVERITY: tuple[Verdict, ...] = ("rejected", "inconclusive", "passed")
ROUNDING = 1e-9  # lm-eval's aggregate and the mean of its samples differ by the order of additions only


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must show. ValueError where no report could pass or none could fail.

    superior: the whole interval of candidate - baseline lies above `margin`; non_inferior: above -`margin`.
    floor: the candidate's own mean is at least this. Its interval is stated and not required to clear the floor;
    a mean below a floor that the interval still reaches is inconclusive.
    min_case_pass_rate: of promptfoo's cases; 0 needs no cases. max_newly_failing_cases: cases that the baseline passed.
    """

    metric: str = "exact_match,none"
    rule: Literal["superior", "non_inferior"] = "superior"
    margin: float = 0.0
    alpha: float = 0.05
    floor: float = 0.0
    min_items: int = 100
    min_case_pass_rate: float = 1.0
    max_newly_failing_cases: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 and 1")
        if not (0 <= self.margin < 1) or (self.rule == "non_inferior" and self.margin == 0):
            raise ValueError(f"margin is {self.margin}; it must lie in [0, 1), above 0 for non_inferior")
        if self.min_items < 2:
            raise ValueError(f"min_items is {self.min_items}; an interval needs 2 items")
        if not 0 <= self.min_case_pass_rate <= 1:
            raise ValueError(f"min_case_pass_rate is {self.min_case_pass_rate}; it must lie in [0, 1]")


@dataclass(frozen=True)
class RuleResult:
    """`low` and `high` bound `estimate` at level 1 - alpha; `required` is what the rule holds it against."""

    name: str
    estimate: float
    low: float
    high: float
    required: float
    verdict: Verdict


@dataclass(frozen=True)
class Flips:
    """Ids whose result changed, in the candidate's order. A graded item fails newly when its score fell."""

    newly_failing: tuple[str, ...]
    newly_passing: tuple[str, ...]


@dataclass(frozen=True)
class GateDecision:
    """The verdict and all it rests on. `reasons` are sentences, the deciding ones first; digests are the reports'."""

    verdict: Verdict
    rules: tuple[RuleResult, ...]
    items_used: int
    items_available: int
    reasons: tuple[str, ...]
    candidate: str
    baseline: str
    candidate_report_sha256: str
    baseline_report_sha256: str
    item_flips: Flips
    case_flips: Flips


def decide(candidate: EvalReport, baseline: EvalReport, policy: GatePolicy) -> GateDecision:
    """Judge `candidate`. Raises ReportInvalid (a broken side) or FingerprintMismatch (sides not comparable)."""
    for report in (candidate, baseline):
        check(report)
        _check_metric(report, policy.metric)
    check_comparable(candidate, baseline)
    case_flips = _case_flips(candidate, baseline)
    judged = [
        _judge_difference(candidate, baseline, policy),
        *_judge_floor(candidate, policy),
        *_judge_case_rate(candidate, policy),
        *_judge_regressions(case_flips, candidate, policy),
    ]
    doubts = (*_too_few_items(candidate, policy), *_errored(candidate), *_errored(baseline))
    verdict, reasons = _combine(judged, doubts)
    return GateDecision(
        verdict=verdict,
        rules=tuple(rule for rule, _ in judged),
        items_used=candidate.n,
        items_available=candidate.n,
        reasons=reasons,
        candidate=candidate.fingerprint.model,
        baseline=baseline.fingerprint.model,
        candidate_report_sha256=candidate.sha256,
        baseline_report_sha256=baseline.sha256,
        item_flips=_item_flips(candidate, baseline),
        case_flips=case_flips,
    )


def _combine(judged: Sequence[Judged], doubts: Sequence[str]) -> tuple[Verdict, tuple[str, ...]]:
    """The worst verdict decides; a doubt is as bad as an inconclusive rule."""
    verdicts: set[Verdict] = {rule.verdict for rule, _ in judged} | ({"inconclusive"} if doubts else set())
    told: list[tuple[Verdict, str]] = [*(("inconclusive", doubt) for doubt in doubts)]
    told += [(rule.verdict, reason) for rule, reason in judged]
    ordered = sorted(told, key=lambda pair: SEVERITY.index(pair[0]))
    return next(verdict for verdict in SEVERITY if verdict in verdicts), tuple(reason for _, reason in ordered)


def _check_metric(report: EvalReport, metric: str) -> None:
    name, found = report.fingerprint.model, dict(report.metrics)
    if metric not in found:
        raise ReportInvalid(f"the report of {name} lacks the metric {metric!r}; it has {', '.join(found) or 'none'}")
    mean = fmean(item.score for item in report.items)
    if abs(mean - found[metric]) > ROUNDING:
        raise ReportInvalid(f"the report of {name} says {metric} {found[metric]:.6f}; its items' mean is {mean:.6f}")


def _judge_difference(candidate: EvalReport, baseline: EvalReport, policy: GatePolicy) -> Judged:
    before = {item.id: item.score for item in baseline.items}
    new, old = [item.score for item in candidate.items], [before[item.id] for item in candidate.items]
    if candidate.n < 2:
        rule = RuleResult(policy.rule, new[0] - old[0], -1.0, 1.0, policy.margin, "inconclusive")
        return rule, "One item has no interval: the difference cannot be judged."
    found = paired_difference(new, old, policy.alpha)
    required = policy.margin if policy.rule == "superior" else -policy.margin
    verdict = _against(required, found.low, found.high)
    p_value = "" if found.p_value is None else f"; exact McNemar p = {found.p_value:.2g}"
    reason = (
        f"{policy.metric} is {fmean(new):.3f} against {fmean(old):.3f} for the baseline {baseline.fingerprint.model}: "
        f"a difference of {found.estimate:+.3f}, {_level(policy)} interval {found.low:+.3f} to {found.high:+.3f} "
        f"({found.better} items better, {found.worse} worse of {found.n}{p_value}). "
        f"{policy.rule} needs the whole interval above {required:+.3f}: {verdict}{_advice(verdict)}."
    )
    return RuleResult(policy.rule, found.estimate, found.low, found.high, required, verdict), reason


def _against(required: float, low: float, high: float) -> Verdict:
    return "passed" if low > required else "rejected" if high < required else "inconclusive"


def _advice(verdict: Verdict) -> str:
    return "; more items would narrow it" if verdict == "inconclusive" else ""


def _level(policy: GatePolicy) -> str:
    return f"{100 * (1 - policy.alpha):g} %"


def _judge_floor(candidate: EvalReport, policy: GatePolicy) -> list[Judged]:
    if policy.floor == 0:
        return []
    scores = [item.score for item in candidate.items]
    estimate = fmean(scores)
    low, high = mean_interval(scores, policy.alpha) if len(scores) > 1 else (0.0, 1.0)
    verdict: Verdict = "passed" if estimate >= policy.floor else _against(policy.floor, low, high)
    reason = (
        f"{policy.metric} is {estimate:.3f} ({_level(policy)} interval {low:.3f} to {high:.3f}); "
        f"the floor is {policy.floor:.3f}: {verdict}{_advice(verdict)}."
    )
    return [(RuleResult("floor", estimate, low, high, policy.floor, verdict), reason)]


def _judge_case_rate(candidate: EvalReport, policy: GatePolicy) -> list[Judged]:
    """Errored cases are left out of the rate: they are a doubt, not a failure."""
    counts, name, required = candidate.assertions, "case_pass_rate", policy.min_case_pass_rate
    if required == 0:
        return []
    judged = counts.passed + counts.failed
    if judged == 0:
        reason = f"No promptfoo case was judged; the policy needs a pass rate of {required:.2f}: run the suite's cases."
        return [(RuleResult(name, 0.0, 0.0, 1.0, required, "inconclusive"), reason)]
    rate = counts.passed / judged
    low, high = wilson_interval(counts.passed, judged, policy.alpha)
    verdict: Verdict = "passed" if rate >= required else "rejected"
    reason = f"{counts.passed} of {judged} promptfoo cases pass ({rate:.2f}); {required:.2f} is required: {verdict}."
    return [(RuleResult(name, rate, low, high, required, verdict), reason)]


def _judge_regressions(flips: Flips, candidate: EvalReport, policy: GatePolicy) -> list[Judged]:
    if not candidate.cases:
        return []
    count, allowed = len(flips.newly_failing), policy.max_newly_failing_cases
    verdict: Verdict = "passed" if count <= allowed else "rejected"
    named = f" ({', '.join(flips.newly_failing)})" if count else ""
    reason = f"{count} promptfoo cases that the baseline passes now fail{named}; {allowed} are allowed: {verdict}."
    return [
        (RuleResult("newly_failing_cases", float(count), float(count), float(count), float(allowed), verdict), reason)
    ]


def _too_few_items(candidate: EvalReport, policy: GatePolicy) -> list[str]:
    if candidate.n >= policy.min_items:
        return []
    return [f"{candidate.n} items were evaluated; the policy needs {policy.min_items}: evaluate on more items."]


def _errored(report: EvalReport) -> list[str]:
    errored = [case for case in report.cases if case.errored]
    if not errored:
        return []
    first = errored[0]
    return [
        f"{len(errored)} promptfoo cases of {report.fingerprint.model} errored and say nothing, such as {first.id} "
        f"({first.reason.splitlines()[0] if first.reason else 'no reason given'}): mend the cause and evaluate again."
    ]


def _item_flips(candidate: EvalReport, baseline: EvalReport) -> Flips:
    before = {item.id: item.score for item in baseline.items}
    return Flips(
        tuple(item.id for item in candidate.items if item.score < before[item.id]),
        tuple(item.id for item in candidate.items if item.score > before[item.id]),
    )


def _case_flips(candidate: EvalReport, baseline: EvalReport) -> Flips:
    """Between judged outcomes only: an errored case neither passes nor fails."""
    before = {case.id: case.passed for case in baseline.cases if not case.errored}
    both = [case for case in candidate.cases if not case.errored and case.id in before]
    return Flips(
        tuple(case.id for case in both if before[case.id] and not case.passed),
        tuple(case.id for case in both if case.passed and not before[case.id]),
    )
