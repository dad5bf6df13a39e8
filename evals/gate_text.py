"""What a rule's result says, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from evals.gate_items import Pair
from evals.gate_policy import GatePolicy, RuleResult
from evals.gate_rules import Rule

MOST_NAMED = 10  # items of one sentence


def rule_sentence(result: RuleResult, used: Sequence[Pair], policy: GatePolicy, baseline: str) -> str:
    """`used` are the pairs that the verdict rests on."""
    pairs = [pair for pair in used if result.slice in ("", *("=".join(one) for one in pair.slices))]
    where = f" on {result.slice}" if result.slice else ""
    if not pairs:
        return f"{policy.metric}{where} has no items yet: {result.verdict}."
    if result.name == "floor":
        return _floor(result, where, policy)
    better, worse = (sum(sign * (pair.candidate - pair.baseline) > 0 for pair in pairs) for sign in (1, -1))
    return (
        f"{policy.metric}{where} is {fmean(pair.candidate for pair in pairs):.3f} against "
        f"{fmean(pair.baseline for pair in pairs):.3f} for the baseline {baseline}: a difference of "
        f"{result.estimate:+.3f}, between {result.low:+.3f} and {result.high:+.3f} ({_level(policy)}; {better} items better, "
        f"{worse} worse of {_used(result)}; p = {result.p_value:.2g}). "
        f"{result.name} needs the lower bound above {result.required:+.3f}: {result.verdict}{_advice(result)}."
    )


def _floor(result: RuleResult, where: str, policy: GatePolicy) -> str:
    return (
        f"{policy.metric}{where} is {result.estimate:.3f}, between {result.low:.3f} and {result.high:.3f} "
        f"({_level(policy)}; {_used(result)} items). The floor is {result.required:.3f} for the lower bound: "
        f"{result.verdict}{_advice(result)}."
    )


def _level(policy: GatePolicy) -> str:
    return f"each bound holds with {100 * (1 - policy.alpha):g} %"


def _used(result: RuleResult) -> str:
    early = result.items_used < result.items_available
    return f"{result.items_used} of {result.items_available} asked" if early else f"{result.items_used}"


def _advice(result: RuleResult) -> str:
    if result.verdict == "rejected" and result.name == "non_inferior":
        return ", because the upper bound lies below 0"
    if result.verdict != "inconclusive":
        return ""
    if result.items_needed is None:
        return "; the estimate is too near to what is required for any number of items"
    return f"; about {result.items_needed} items in all would decide if the estimate stayed"


def failing_sentences(failing: Sequence[str]) -> tuple[str, ...]:
    """One, where items failed in every repeat."""
    if not failing:
        return ()
    more = f" and {len(failing) - MOST_NAMED} more" if len(failing) > MOST_NAMED else ""
    return (f"{len(failing)} items failed in every repeat: {', '.join(failing[:MOST_NAMED])}{more}.",)


def too_small_sentence(rule: Rule, units: int, fewest: int) -> str:
    where = f" of {'='.join(rule.slice)}" if rule.slice else ""
    return (
        f"{units} independent items{where} can never show {rule.name} {rule.bound:g}: even if the candidate were right on "
        f"all of them it would take {fewest}. Add items, or drop the rule."
    )
