"""One rule on one stream of items: p-values of passing and of failing at each look, and the interval at a level. Pure.

A rule passes when "the truth is at or below what is required" is refused, and fails when "the truth is at or above what a
fair candidate has" is. For superior and floor the two meet at one value. A non_inferior rule fails where the candidate is
shown to be worse than the baseline at all before it is shown to be within the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals import sequential
from evals.gate_policy import RuleName
from evals.stats import paired_low, paired_p, proportion_low, proportion_p
from evals.stats_means import mean_low, mean_p

Array = NDArray[np.float64]

PASS_SHARE, FAIL_SHARE = 0.38, 0.66  # of alpha, for the blocks; the rest is the last look's
FULL_SHARE_ITEMS = 400  # a smaller suite can gain little from blocks, so it keeps more for the last look
PASS_EFFECT, FAIL_EFFECT = 1.3, 1.65  # in margins: between no difference and a better candidate; a clearly worse one
USUAL_EFFECT = 0.05  # where the rule has no margin that says what size matters
LARGE_EFFECT = 0.2


@dataclass(frozen=True)
class Rule:
    """`bound` is the margin of a comparison, or the floor. `slice` is a (column, value), or None for all items."""

    name: RuleName
    bound: float
    slice: tuple[str, str] | None = None

    @property
    def passes_above(self) -> float:
        return -self.bound if self.name == "non_inferior" else self.bound

    @property
    def fails_below(self) -> float:
        return 0.0 if self.name == "non_inferior" else self.bound

    @property
    def lowest(self) -> float:
        return 0.0 if self.name == "floor" else -1.0

    @property
    def pass_effects(self) -> tuple[float, ...]:
        return (PASS_EFFECT * self.bound,) if self.name == "non_inferior" else (USUAL_EFFECT, LARGE_EFFECT)

    @property
    def fail_effects(self) -> tuple[float, ...]:
        return (FAIL_EFFECT * self.bound,) if self.name == "non_inferior" else (USUAL_EFFECT, LARGE_EFFECT)


def fewest_units(rule: Rule, alpha: float) -> int:
    """With fewer units even the best outcome, every unit at 1, would not pass."""
    best = (rule.passes_above - rule.lowest) / (
        1 - rule.lowest
    )  # the largest chance of such a unit under the hypothesis
    return max(2, ceil(log(alpha) / log(best)))


@dataclass(frozen=True)
class Stream:
    """The units of a rule in the order in which they were asked; `ends` are the numbers of units at each look.

    `values` are sums over a unit's items of candidate - baseline (of the candidate's score for a floor), `sizes` the
    numbers of items. `binary` means single items of right-or-wrong scores. `last` means that no items are left.
    Of the whole suite, asked or not: `available` is its number of items, `largest` the most items in one of its units.
    Both are known before any score, so they may steer the bets.
    """

    values: Array
    sizes: Array
    ends: tuple[int, ...]
    binary: bool
    blocks: bool
    last: bool
    available: int
    largest: int

    def up_to(self, look: int) -> Stream:
        """The looks up to this one."""
        ends = self.ends[: look + 1]
        last = self.last and look + 1 == len(self.ends)
        return replace(self, values=self.values[: ends[-1]], sizes=self.sizes[: ends[-1]], ends=ends, last=last)


@dataclass(frozen=True)
class Side:
    """A stream as seen by one claim: that its mean lies above `mean`. Failing is the mirrored claim."""

    stream: Stream
    mean: float
    lowest: float
    effects: tuple[float, ...]
    share: float

    def stakes(self) -> list[Array]:
        stream = self.stream
        centre = self.mean if self.lowest == 0 else 0.0
        return [sequential.bets(stream.values, stream.sizes, stream.ends, centre, effect) for effect in self.effects]


def sides(rule: Rule, stream: Stream) -> tuple[Side, Side]:
    mirrored = stream.sizes - stream.values if rule.name == "floor" else -stream.values
    other = replace(stream, values=mirrored)
    share = PASS_SHARE * min(1.0, stream.available / FULL_SHARE_ITEMS)
    above = 1 - rule.fails_below if rule.name == "floor" else -rule.fails_below
    return (
        Side(stream, rule.passes_above, rule.lowest, rule.pass_effects, share),
        Side(other, above, rule.lowest, rule.fail_effects, FAIL_SHARE),
    )


def p_values(rule: Rule, stream: Stream) -> tuple[Array, Array]:
    """(looks), (looks): of passing and of failing, valid at every look and for every level at once."""
    passing, failing = sides(rule, stream)
    return _p_values(passing), _p_values(failing)


def _p_values(side: Side) -> Array:
    stream = side.stream
    if stream.ends[-1] == 0:
        return np.ones(len(stream.ends))
    if not stream.blocks:
        return np.array([_fixed_p(side)])
    stakes = side.stakes()
    wealth = sequential.log_wealth(
        stream.values, stream.sizes, stream.ends, stakes, side.mean, side.lowest, stream.largest
    )
    always = sequential.always_valid_p(wealth)
    found: Array = np.minimum(1.0, always / side.share)
    if stream.last:
        drift = _drift(side, stakes)
        found[-1] = min(
            found[-1], sequential.shared_p(float(always[-1]), _fixed_p(side), side.share, drift, len(stream.ends))
        )
    return found


def _drift(side: Side, stakes: Sequence[Array]) -> Array:
    stream, centre = side.stream, side.mean if side.lowest == 0 else 0.0
    return sequential.drifts(
        stream.values, stream.sizes, stream.ends, stakes, centre, side.mean, side.lowest, stream.largest
    )


def _counts(stream: Stream) -> tuple[int, int, int]:
    return int(np.sum(stream.values > 0)), int(np.sum(stream.values < 0)), len(stream.values)


def _fixed_p(side: Side) -> float:
    stream = side.stream
    better, worse, n = _counts(stream)
    if stream.binary:
        return proportion_p(better, n, side.mean) if side.lowest == 0 else paired_p(better, worse, n, side.mean)
    return float(mean_p(stream.values, stream.sizes, side.mean, side.lowest))


def _fixed_low(side: Side, alpha: float) -> float:
    stream = side.stream
    better, worse, n = _counts(stream)
    if stream.binary:
        floor = side.lowest == 0
        return proportion_low(better, n, alpha) if floor else paired_low(better, worse, n, side.mean, alpha)
    return float(mean_low(stream.values, stream.sizes, alpha, side.lowest))


def bounds(rule: Rule, stream: Stream, alpha: float, shown: Sequence[int]) -> tuple[Array, Array]:
    """Lower and upper bound at the looks `shown`, each wrong with probability at most `alpha` over all looks together."""
    passing, failing = sides(rule, stream)
    mirrored = _lows(failing, alpha, shown)
    return _lows(passing, alpha, shown), (1 - mirrored if rule.name == "floor" else -mirrored)


def _lows(side: Side, alpha: float, shown: Sequence[int]) -> Array:
    stream = side.stream
    if stream.ends[-1] == 0:
        return np.full(len(shown), side.lowest)
    if not stream.blocks:
        return np.array([_fixed_low(side, alpha)])
    stakes, level = side.stakes(), side.share * alpha
    found = sequential.always_valid_low(
        stream.values, stream.sizes, stream.ends, stakes, level, side.lowest, stream.largest, shown
    )
    if stream.last and shown[-1] + 1 == len(stream.ends):
        left: Any = sequential.last_look_alpha(alpha, side.share, _drift(side, stakes), len(stream.ends))
        found[-1] = max(found[-1], _fixed_low(side, float(left)))
    return found


def adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70: each at most alpha is a claim of the whole family."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = highest
    return tuple(found)


def levels(p_values: Sequence[float], alpha: float) -> tuple[float, ...]:
    """The level at which Holm holds each claim; where it stops, the others have the level of the one that stopped it."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, left = [alpha] * len(p_values), len(p_values)
    for place in order:
        found[place] = alpha / left
        if p_values[place] <= alpha / left:
            left = max(1, left - 1)
    return tuple(found)
