"""The verdict on two files of scores, whatever made them. Pure; results_files.py reads the files."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evals.gate import GatePolicy, item_flips, items_needed, rules_of
from evals.gate_blocks import Placed, plan_blocks
from evals.gate_items import Judgement, Pair, judge_pairs
from evals.gate_policy import EXIT_CODES, SEVERITY, Flips, GateDecision, RuleResult, Verdict
from evals.gate_rules import fewest_units
from evals.gate_text import failing_sentences, rule_sentence, too_small_sentence
from evals.gated import GatedChange, GatedSuite, ItemDiff
from evals.results_files import Results, ResultsInvalid, Scored, numbers_by_id


class SuiteTooSmall(Exception):
    """Fewer items than a rule could ever decide on."""


@dataclass(frozen=True)
class Compared:
    """What `liftlock gate compare` answers; `difference` is candidate - baseline over the items used."""

    verdict: Verdict
    difference: float
    interval: tuple[float, float]
    items_used: int
    items_total: int
    items_needed: int | None
    reasons: tuple[str, ...]
    rules: tuple[RuleResult, ...]
    always_failing: tuple[str, ...]
    seed: int | None
    used: tuple[Pair, ...]


def compare(baseline: Results, candidate: Results, policy: GatePolicy) -> Compared:
    """`policy.metric` is for the words only. Raises ResultsInvalid (sides that do not pair) or SuiteTooSmall."""
    pairs = pair_results(baseline, candidate)
    _check_size(pairs, policy)
    placed = [Placed(pair.id, pair.cluster, pair.slices) for pair in pairs]
    plan = plan_blocks(placed, policy.block, policy.seed) if policy.block else None
    found = judge_pairs(pairs, rules_of(policy), policy.alpha, plan)
    failing = always_failing(candidate)
    first = found.results[0]
    return Compared(
        verdict=found.verdict,
        difference=first.estimate,
        interval=(first.low, first.high),
        items_used=len(found.used),
        items_total=len(pairs),
        items_needed=items_needed(found),
        reasons=(*_reasons(found, policy, str(baseline.path)), *failing_sentences(failing)),
        rules=found.results,
        always_failing=failing,
        seed=plan.seed if plan else None,
        used=found.used,
    )


def as_change(compared: Compared, baseline: Results, candidate: Results, policy: GatePolicy) -> GatedChange:
    """The same verdict as the value that JUnit XML, Markdown and the page are made of."""
    decision = GateDecision(
        verdict=compared.verdict,
        rules=compared.rules,
        items_used=compared.items_used,
        items_available=compared.items_total,
        items_needed=compared.items_needed,
        reasons=compared.reasons,
        candidate=str(candidate.path),
        baseline=str(baseline.path),
        baseline_version=None,
        candidate_report_sha256="",
        baseline_report_sha256="",
        alpha=policy.alpha,
        seed=compared.seed,
        finished=True,
        item_flips=item_flips(compared.used),
        case_flips=Flips((), ()),
        always_failing=compared.always_failing,
    )
    old, new = ({one.id: one for one in side.scored} for side in (baseline, candidate))
    items = tuple(_diff(pair, old[pair.id], new[pair.id]) for pair in compared.used)
    return GatedChange("", "", (GatedSuite(candidate.path.name, (), policy.metric, decision, items),))


def _diff(pair: Pair, old: Scored, new: Scored) -> ItemDiff:
    """Of an item that was asked more than once, the last answers stand for all."""
    return ItemDiff(
        pair.id, pair.slices, new.question, new.target, old.answer, new.answer, pair.baseline, pair.candidate
    )


def document(compared: Compared) -> dict[str, Any]:
    """The JSON answer."""
    return {
        "verdict": compared.verdict,
        "exit_code": EXIT_CODES[compared.verdict],
        "difference": compared.difference,
        "interval": list(compared.interval),
        "items_used": compared.items_used,
        "items_total": compared.items_total,
        "items_needed": compared.items_needed,
        "reasons": list(compared.reasons),
    }


def pair_results(baseline: Results, candidate: Results) -> tuple[Pair, ...]:
    """One pair an item, repeats averaged, in the candidate's order."""
    before, after = dict(numbers_by_id(baseline)), dict(numbers_by_id(candidate))
    if odd := sorted(set(before) ^ set(after)):
        where, other = (candidate, baseline) if odd[0] in after else (baseline, candidate)
        raise ResultsInvalid(
            f"{len(odd)} ids are on one side only, such as {odd[0]!r} in {where.path} and not in {other.path}; "
            "both files must hold the same items: evaluate both on the same data"
        )
    asked = {one.id: one for one in baseline.scored}
    told = {one.id: one for one in candidate.scored}
    for name, one in told.items():
        if (one.content, one.cluster) != (asked[name].content, asked[name].cluster):
            raise ResultsInvalid(
                f"the item {name!r} is another one in {candidate.path} than in {baseline.path} (its content or cluster "
                "differs); evaluate both on the same data"
            )
    return tuple(
        Pair(name, fmean(scores), fmean(before[name]), told[name].cluster, told[name].slices)
        for name, scores in after.items()
    )


def always_failing(results: Results) -> tuple[str, ...]:
    """Items that were asked more than once and never got a point."""
    return tuple(name for name, scores in numbers_by_id(results) if len(scores) > 1 and not any(scores))


def _check_size(pairs: tuple[Pair, ...], policy: GatePolicy) -> None:
    units, rules = len({pair.cluster for pair in pairs}), rules_of(policy)
    for rule in rules:
        fewest = fewest_units(rule, policy.alpha / len(rules))
        if units < fewest:
            raise SuiteTooSmall(too_small_sentence(rule, units, fewest))


def _reasons(found: Judgement, policy: GatePolicy, baseline: str) -> tuple[str, ...]:
    ordered = sorted(found.results, key=lambda result: SEVERITY.index(result.verdict))
    return tuple(rule_sentence(result, found.used, policy, baseline) for result in ordered)
