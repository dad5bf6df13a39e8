"""The verdict on paired scores by several rules, after some blocks or all of them. Pure.

All rules must pass; Holm shares alpha among them, for passing and for failing. It stops at the first look at which every
rule is shown to pass or some rule is shown to fail. It knows nothing of reports, files, cases or wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.gate_blocks import BlockPlan
from evals.gate_policy import Look, RuleResult, Verdict
from evals.gate_rules import Rule, Stream, adjusted, bounds, levels, p_values
from evals.power import items_for
from evals.stats_means import standard_error

MOST_LOOKS = 60  # of a path that is kept


@dataclass(frozen=True)
class Pair:
    """Both sides' scores of one item; `cluster` is the item's own id where items are independent."""

    id: str
    candidate: float
    baseline: float
    cluster: str
    slices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Judgement:
    """`used` are the pairs that the verdict rests on. `finished` is False where the next block could decide."""

    verdict: Verdict
    results: tuple[RuleResult, ...]
    used: tuple[Pair, ...]
    finished: bool


def judge_pairs(pairs: Sequence[Pair], rules: Sequence[Rule], alpha: float, plan: BlockPlan | None) -> Judgement:
    """Judge the pairs at hand: all of the suite at one look, or those of the plan's first blocks.

    With a plan, the pairs are the whole of some first blocks, in any order; ValueError otherwise.
    """
    ordered, ends, last = (tuple(pairs), (len(pairs),), True) if plan is None else _in_blocks(pairs, plan)
    available = len(pairs) if plan is None else plan.items
    streams = [_stream(rule, ordered, ends, plan, last) for rule in rules]
    evidence = [p_values(rule, stream) for rule, stream in zip(rules, streams, strict=True)]
    passing, failing = (np.array([both[side] for both in evidence]) for side in (0, 1))
    look = next(
        (look for look in range(len(ends)) if _decided(passing[:, look], failing[:, look], alpha)), len(ends) - 1
    )
    verdicts = _verdicts(passing[:, look], failing[:, look], alpha)
    used = ordered[: ends[look]]
    share = available / len(used)
    results = tuple(
        _result(rule, stream.up_to(look), verdict, level, p_value, ends[: look + 1], share)
        for rule, stream, verdict, level, p_value in zip(
            rules,
            streams,
            verdicts,
            _levels(passing[:, look], failing[:, look], alpha),
            adjusted(passing[:, look].tolist()),
            strict=True,
        )
    )
    verdict = combined(verdicts)
    return Judgement(verdict, results, used, verdict != "inconclusive" or (last and look + 1 == len(ends)))


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst one."""
    return "rejected" if "rejected" in verdicts else "inconclusive" if "inconclusive" in verdicts else "passed"


def _in_blocks(pairs: Sequence[Pair], plan: BlockPlan) -> tuple[tuple[Pair, ...], tuple[int, ...], bool]:
    by_id = {pair.id: pair for pair in pairs}
    ordered: list[Pair] = []
    ends: list[int] = []
    for block in plan.blocks:
        if not all(name in by_id for name in block):
            break
        ordered += [by_id[name] for name in block]
        ends.append(len(ordered))
    if len(ordered) != len(pairs) or not ends:
        raise ValueError(f"{len(pairs)} pairs are not the first whole blocks of the plan; {len(ordered)} of them are")
    return tuple(ordered), tuple(ends), len(ends) == len(plan.blocks)


def _stream(rule: Rule, pairs: Sequence[Pair], ends: Sequence[int], plan: BlockPlan | None, last: bool) -> Stream:
    """Units are runs of pairs with one cluster; the plan keeps a cluster together, one look needs no order."""
    units: dict[str, list[float]] = {}
    unit_ends: list[int] = []
    place = 0
    for end in ends:
        for pair in pairs[place:end]:
            if rule.slice is None or rule.slice in pair.slices:
                units.setdefault(pair.cluster, []).append(_value(rule, pair))
        unit_ends.append(len(units))
        place = end
    sizes = np.array([len(found) for found in units.values()], dtype=float)
    values = np.array([sum(found) for found in units.values()], dtype=float)
    sides = {score for pair in pairs for score in (pair.candidate, pair.baseline)}
    return Stream(
        values,
        sizes,
        tuple(unit_ends),
        binary=sides <= {0.0, 1.0} and bool(np.all(sizes == 1)),
        blocks=plan is not None,
        last=last,
        available=plan.items if plan else len(pairs),
        largest=plan.largest if plan else 1,
    )


def _value(rule: Rule, pair: Pair) -> float:
    return pair.candidate if rule.name == "floor" else pair.candidate - pair.baseline


def _decided(passing: NDArray[np.float64], failing: NDArray[np.float64], alpha: float) -> bool:
    return combined(_verdicts(passing, failing, alpha)) != "inconclusive"


def _verdicts(passing: NDArray[np.float64], failing: NDArray[np.float64], alpha: float) -> tuple[Verdict, ...]:
    """A rule that is shown both to be met and to fail a fair candidate's value (worse, within the margin) is met."""
    both = zip(adjusted(passing.tolist()), adjusted(failing.tolist()), strict=True)
    return tuple(
        "passed" if met <= alpha else "rejected" if failed <= alpha else "inconclusive" for met, failed in both
    )


def _levels(passing: NDArray[np.float64], failing: NDArray[np.float64], alpha: float) -> tuple[float, ...]:
    """One level for both bounds: of the claim that is nearer to being shown."""
    both = zip(passing, failing, levels(passing.tolist(), alpha), levels(failing.tolist(), alpha), strict=True)
    return tuple(for_pass if met <= failed else for_fail for met, failed, for_pass, for_fail in both)


def _result(
    rule: Rule, stream: Stream, verdict: Verdict, level: float, p_value: float, ends: Sequence[int], share: float
) -> RuleResult:
    """`share` is how many items the suite has for each one used."""
    shown = sorted({*np.linspace(0, len(ends) - 1, min(MOST_LOOKS, len(ends))).round().astype(int).tolist()})
    lows, highs = bounds(rule, stream, level, shown)
    totals, counts = np.r_[0.0, np.cumsum(stream.values)], np.r_[0.0, np.cumsum(stream.sizes)]
    path = tuple(
        _look(rule, int(counts[stream.ends[look]]), float(totals[stream.ends[look]]), float(low), float(high))
        for look, low, high in zip(shown, lows, highs, strict=True)
    )
    final, items = path[-1], path[-1].items
    named = "=".join(rule.slice) if rule.slice else ""
    return RuleResult(
        name=rule.name,
        estimate=final.estimate,
        low=final.low,
        high=final.high,
        required=rule.passes_above,
        verdict=verdict,
        slice=named,
        p_value=float(p_value),
        items_used=items,
        items_available=round(items * share) if rule.slice else round(counts[-1] * share),
        items_needed=_needed(rule, stream, final, level) if verdict == "inconclusive" else None,
        method=_method(stream),
        path=path,
    )


def _look(rule: Rule, items: int, total: float, low: float, high: float) -> Look:
    estimate = total / items if items else 0.0
    passes_above, fails_below = rule.passes_above + estimate - low, rule.fails_below - (high - estimate)
    return Look(items, estimate, low, high, passes_above, fails_below)


def _needed(rule: Rule, stream: Stream, final: Look, level: float) -> int | None:
    """For the nearer of the two answers that the estimate points to."""
    if len(stream.values) < 2:
        return None
    deviation = float(standard_error(stream.values, stream.sizes)) * float(np.sqrt(final.items))
    gaps = (final.estimate - rule.passes_above, rule.fails_below - final.estimate)
    found = [items for gap in gaps if (items := items_for(deviation, gap, level)) is not None]
    return max(min(found), final.items + 1) if found else None


def _method(stream: Stream) -> str:
    once = "exact test" if stream.binary else "cluster-robust t" if np.any(stream.sizes > 1) else "t test"
    return f"betting, then {once}" if stream.blocks else once
