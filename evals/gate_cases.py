"""What promptfoo's cases say of a candidate: how many pass, which fail newly, and which say nothing. Pure."""

from __future__ import annotations

from evals.gate_policy import Flips, GatePolicy, RuleResult, Verdict
from evals.report import EvalReport
from evals.stats import wilson_interval

Judged = tuple[RuleResult, str]  # a rule's outcome and its sentence


def judge_case_rate(candidate: EvalReport, policy: GatePolicy, by_items: Verdict) -> list[Judged]:
    """Errored cases are left out of the rate: they are a doubt, not a failure."""
    counts, name, required = candidate.assertions, "case_pass_rate", policy.min_case_pass_rate
    if required == 0:
        return []
    judged = counts.passed + counts.failed
    if judged == 0:
        reason = f"No promptfoo case was judged; the policy needs a pass rate of {required:.2f}: run the suite's cases."
        if by_items == "rejected":
            reason = "No promptfoo case was asked: the items had decided."
        return [(RuleResult(name, 0.0, 0.0, 1.0, required, "inconclusive"), reason)]
    rate = counts.passed / judged
    low, high = wilson_interval(counts.passed, judged, policy.alpha)
    verdict: Verdict = "passed" if rate >= required else "rejected"
    reason = f"{counts.passed} of {judged} promptfoo cases pass ({rate:.2f}); {required:.2f} is required: {verdict}."
    return [(RuleResult(name, rate, low, high, required, verdict), reason)]


def judge_regressions(flips: Flips, candidate: EvalReport, policy: GatePolicy) -> list[Judged]:
    if not candidate.cases:
        return []
    count, allowed = len(flips.newly_failing), policy.max_newly_failing_cases
    verdict: Verdict = "passed" if count <= allowed else "rejected"
    named = f" ({', '.join(flips.newly_failing)})" if count else ""
    reason = f"{count} promptfoo cases that the baseline passes now fail{named}; {allowed} are allowed: {verdict}."
    return [
        (RuleResult("newly_failing_cases", float(count), float(count), float(count), float(allowed), verdict), reason)
    ]


def cases_refuse(candidate: EvalReport, baseline: EvalReport, policy: GatePolicy, total: int) -> bool:
    """Whether the cases so far reject the candidate, however the rest of `total` turn out."""
    counts = candidate.assertions
    judged = total - counts.errored
    best = 1 - counts.failed / judged if judged else 1.0
    newly = len(case_flips_of(candidate, baseline).newly_failing)
    return best < policy.min_case_pass_rate or newly > policy.max_newly_failing_cases


def errored_cases(report: EvalReport, side: str) -> list[str]:
    errored = [case for case in report.cases if case.errored]
    if not errored:
        return []
    first = errored[0]
    return [
        f"{len(errored)} promptfoo cases of {side} errored and say nothing, such as {first.id} "
        f"({first.reason.splitlines()[0] if first.reason else 'no reason given'}): mend the cause and evaluate again."
    ]


def case_flips_of(candidate: EvalReport, baseline: EvalReport) -> Flips:
    """Between judged outcomes only: an errored case neither passes nor fails."""
    before = {case.id: case.passed for case in baseline.cases if not case.errored}
    both = [case for case in candidate.cases if not case.errored and case.id in before]
    return Flips(
        tuple(case.id for case in both if before[case.id] and not case.passed),
        tuple(case.id for case in both if case.passed and not before[case.id]),
    )
