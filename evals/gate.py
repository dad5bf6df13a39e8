"""The verdict on a candidate: its report against a baseline's, paired by item id. Pure.

It fails closed: reports that are broken or not comparable raise, and what cannot be judged is inconclusive. It does not
evaluate anything. With `policy.block` it goes through the items in the plan's order and stops where the verdict is clear;
it can be asked again after every block, with the reports of the blocks so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from evals.fingerprint import check_comparable
from evals.gate_blocks import BlockPlan, Placed, plan_blocks
from evals.gate_cases import Judged, case_flips_of, errored_cases, judge_case_rate, judge_regressions
from evals.gate_items import Judgement, Pair, combined, judge_pairs
from evals.gate_policy import SEVERITY, Flips, GateDecision, GatePolicy, Look, RuleResult, SliceRule, Verdict
from evals.gate_rules import Rule, fewest_units
from evals.gate_text import failing_sentences, rule_sentence, too_small_sentence
from evals.report import EvalReport, ItemResult, ReportInvalid, check
from evals.suite import SuiteInvalid

__all__ = [
    "Flips", "GateDecision", "GatePolicy", "Look", "RuleResult", "SliceRule", "Verdict", "decide", "plan_of",
    "plan_of_suite", "rules_of",
]  # fmt: skip

ROUNDING = 1e-9  # lm-eval's aggregate and the mean of its samples differ by the order of additions only


def decide(
    candidate: EvalReport,
    baseline: EvalReport,
    policy: GatePolicy,
    *,
    baseline_version: str | None = None,
    plan: BlockPlan | None = None,
    under_test: Sequence[str] = (),
) -> GateDecision:
    """Judge `candidate`. Without a `plan` the reports hold the whole suite; with one, its blocks so far.

    `under_test` are fields of the fingerprint that may differ (see check_comparable).

    Raises ReportInvalid (a broken side) or FingerprintMismatch (sides not comparable).
    """
    for report in (candidate, baseline):
        check(report)
        _check_metric(report, policy.metric)
    check_comparable(candidate, baseline, under_test)
    pairs = _pairs(candidate, baseline, policy)
    plan = plan or (plan_of(candidate, policy) if policy.block else None)
    available = plan.items if plan else len(pairs)
    found = judge_pairs(pairs, rules_of(policy), policy.alpha, plan)
    case_flips = case_flips_of(candidate, baseline)
    judged = [
        *(
            (result, rule_sentence(result, found.used, policy, _named(baseline, baseline_version)))
            for result in found.results
        ),
        *judge_case_rate(candidate, policy, found.verdict),
        *judge_regressions(case_flips, candidate, policy),
    ]
    doubts = (
        *_too_few(pairs, available, policy),
        *errored_cases(candidate, "the candidate"),
        *errored_cases(baseline, f"the baseline {_named(baseline, baseline_version)}"),
    )
    verdict, reasons = _combine(judged, doubts)
    failing = _always_failing(candidate)
    return GateDecision(
        verdict=verdict,
        rules=tuple(rule for rule, _ in judged),
        items_used=len(found.used),
        items_available=available,
        items_needed=items_needed(found),
        reasons=(*reasons, *failing_sentences(failing)),
        candidate=candidate.fingerprint.model,
        baseline=baseline.fingerprint.model,
        baseline_version=baseline_version,
        candidate_report_sha256=candidate.sha256,
        baseline_report_sha256=baseline.sha256,
        alpha=policy.alpha,
        seed=plan.seed if plan else None,
        finished=found.finished,
        item_flips=item_flips(found.used),
        case_flips=case_flips,
        always_failing=failing,
    )


def _named(baseline: EvalReport, version: str | None) -> str:
    """As a person knows it: the engine's name of a version is a digest."""
    return f"version {version}" if version else baseline.fingerprint.model


def rules_of(policy: GatePolicy) -> tuple[Rule, ...]:
    """The comparison first, then the floor, then the slices' rules."""
    floor = (Rule("floor", policy.floor),) if policy.floor else ()
    sliced = (Rule(one.rule, one.bound, (one.column, one.value)) for one in policy.slices)
    return (Rule(policy.rule, policy.margin), *floor, *sliced)


def plan_of(report: EvalReport, policy: GatePolicy) -> BlockPlan:
    """The order of a whole suite's items; it does not depend on their scores."""
    return _planned([Placed(item.id, _cluster(item, policy), item.slices) for item in report.items], policy)


def plan_of_suite(items: Sequence[Mapping[str, Any]], columns: Sequence[str], policy: GatePolicy) -> BlockPlan:
    """The same order, before any item was asked. `columns` are the task's slices.

    Raises SuiteInvalid where an item lacks one, or where the suite is too small for a rule ever to pass.
    """
    clusters = [_field(item, policy.cluster) if policy.cluster else str(item["id"]) for item in items]
    placed = [
        Placed(str(item["id"]), cluster, tuple((column, _field(item, column)) for column in columns))
        for item, cluster in zip(items, clusters, strict=True)
    ]
    plan = _planned(placed, policy)
    rules = rules_of(policy)
    for rule in rules:
        units = {item.cluster for item in placed if rule.slice in (None, *item.slices)}
        fewest = fewest_units(rule, policy.alpha / len(rules))
        if len(units) < fewest:
            raise SuiteInvalid(too_small_sentence(rule, len(units), fewest))
    return plan


def _field(item: Mapping[str, Any], column: str) -> str:
    if column not in item:
        raise SuiteInvalid(
            f"the item {item['id']!r} lacks the column {column!r} that the task's slices or gate.cluster name; add it"
        )
    return str(item[column])


def _planned(items: Sequence[Placed], policy: GatePolicy) -> BlockPlan:
    """Clusters are no slices to be kept in proportion: each is in one block."""
    kept = [replace(item, slices=tuple(pair for pair in item.slices if pair[0] != policy.cluster)) for item in items]
    return plan_blocks(kept, policy.block, policy.seed)


def items_needed(found: Judgement) -> int | None:
    """The most that a rule which is not decided needs; None where one could not be decided by any number."""
    open_rules = [result.items_needed for result in found.results if result.verdict == "inconclusive"]
    known = [needed for needed in open_rules if needed is not None]
    return max(known) if known and len(known) == len(open_rules) else None


def item_flips(pairs: Sequence[Pair]) -> Flips:
    return Flips(
        tuple(pair.id for pair in pairs if pair.candidate < pair.baseline),
        tuple(pair.id for pair in pairs if pair.candidate > pair.baseline),
    )


def _combine(judged: Sequence[Judged], doubts: Sequence[str]) -> tuple[Verdict, tuple[str, ...]]:
    """The worst verdict decides; a doubt is as bad as an inconclusive rule."""
    told: list[tuple[Verdict, str]] = [*(("inconclusive", doubt) for doubt in doubts)]
    told += [(rule.verdict, reason) for rule, reason in judged]
    ordered = sorted(told, key=lambda pair: SEVERITY.index(pair[0]))
    return combined([verdict for verdict, _ in told]), tuple(reason for _, reason in ordered)


def _check_metric(report: EvalReport, metric: str) -> None:
    name, found = report.fingerprint.model, dict(report.metrics)
    if metric not in found:
        raise ReportInvalid(f"the report of {name} lacks the metric {metric!r}; it has {', '.join(found) or 'none'}")
    mean = fmean(item.score for item in report.items)
    if abs(mean - found[metric]) > ROUNDING:
        raise ReportInvalid(f"the report of {name} says {metric} {found[metric]:.6f}; its items' mean is {mean:.6f}")
    outside = next((item for item in report.items if not 0 <= item.score <= 1), None)
    if outside:
        raise ReportInvalid(f"the report of {name} scores item {outside.id!r} {outside.score}; a score lies in [0, 1]")


def _pairs(candidate: EvalReport, baseline: EvalReport, policy: GatePolicy) -> tuple[Pair, ...]:
    before = {item.id: item.score for item in baseline.items}
    return tuple(
        Pair(item.id, item.score, before[item.id], _cluster(item, policy), item.slices) for item in candidate.items
    )


def _cluster(item: ItemResult, policy: GatePolicy) -> str:
    """The one that was read with the item; one of its slices may be it, too."""
    if not policy.cluster:
        return item.id
    found = item.cluster or dict(item.slices).get(policy.cluster, "")
    if not found:
        raise ReportInvalid(
            f"item {item.id!r} lacks the column {policy.cluster!r} that names its cluster; add it, and evaluate again"
        )
    return found


def _always_failing(report: EvalReport) -> tuple[str, ...]:
    """Items that were asked more than once and never got a point."""
    return tuple(item.id for item in report.items if item.scores and not any(item.scores))


def _too_few(pairs: Sequence[Pair], available: int, policy: GatePolicy) -> list[str]:
    if available < policy.min_items:
        return [f"{available} items were evaluated; the policy needs {policy.min_items}: evaluate on more items."]
    rules = rules_of(policy)
    units = {rule: len({pair.cluster for pair in pairs if rule.slice in (None, *pair.slices)}) for rule in rules}
    level = policy.alpha / len(rules)
    small = [rule for rule in rules if available == len(pairs) and units[rule] < fewest_units(rule, level)]
    return [too_small_sentence(rule, units[rule], fewest_units(rule, level)) for rule in small]
