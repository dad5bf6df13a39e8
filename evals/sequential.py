"""Evidence that may be looked at after every block: a bet against the rule's hypothesis, and what it leaves for the end. Pure.

Wealth starts at 1. Before each block a share of it is bet that the scores are above `mean`; the share depends on earlier
blocks only. Where the mean is at most `mean`, wealth is not expected to grow, and the chance that it ever reaches
1 / alpha, at whatever moment one looks or stops, is at most alpha (Ville 1939). So the hypothesis is refused when it does.
Sources:
- I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
  Statistical Society B 86 (2024) 1-27: wealth, the predictable bet, several bets side by side, and the confidence
  sequence, which is every mean that has not been refused.
- S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
  Annals of Statistics 49 (2021) 1055-1080: the same guarantee at any stopping time.
- D. Siegmund, "Sequential Analysis" (1985), chapters 3 and 10: how likely a path crosses a straight line and still ends
  low, and the correction 0.583 for looks at intervals; it says what is left for the last look.

In a random order that keeps slices in proportion (to within one item a slice) the blocks of one suite have equal means;
the product of such factors is expected to be no larger than with identical items (inequality of arithmetic and geometric
means). The mean is the population's with the suite's mix of slices; no gain is taken from the suite being finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

Array = NDArray[np.float64]

PRIOR_ITEMS = 50.0  # the guess of the variance weighs as much as so many items
PRIOR_VARIANCE = 0.2  # of a difference of right-or-wrong scores, in the middle of what is usual
MOST_AT_STAKE = 0.75  # of the wealth, lost if a unit comes out as low as it can
LOOK_CORRECTION = 0.583
KEPT = 0.94  # of alpha, for what the blocks and the last look spend together by the approximation
BISECTIONS = 50
BOUND_BISECTIONS = 26  # halves of a bracket of width 2, to 3e-8


def bets(values: Array, sizes: Array, ends: Sequence[int], centre: float, effect: float) -> Array:
    """The stake for each look's block, (…, looks): the best one if the mean is `effect` above the hypothesis.

    `values` (…, units) are sums over a unit's items, `sizes` (units) its items; block k is units ends[k-1] to ends[k].
    It rests on the scores of earlier blocks alone, on their squares around `centre`. A stake is a share of wealth for
    each point of score.
    """
    starts = np.r_[0, np.asarray(ends[:-1], dtype=int)]
    squares = _before((values - centre * sizes) ** 2, starts)
    items = _before(sizes, starts)
    found: Array = effect * (PRIOR_ITEMS + items) / (PRIOR_VARIANCE * PRIOR_ITEMS + squares)
    return found


def _before(amounts: Array, starts: NDArray[np.int64]) -> Array:
    """Sum of the amounts in front of each start."""
    sums = np.cumsum(amounts, axis=-1)
    found: Array = np.where(starts > 0, np.take(sums, np.maximum(starts - 1, 0), axis=-1), 0.0)
    return found


def limit(mean: ArrayLike, lowest: float, largest: float) -> Array:
    """The highest stake: it loses MOST_AT_STAKE where a unit of `largest` items comes out as low as it can."""
    found: Array = MOST_AT_STAKE / (np.maximum(np.asarray(mean, dtype=float) - lowest, 1e-9) * largest)
    return found


def log_wealth(
    values: Array,
    sizes: Array,
    ends: Sequence[int],
    stakes: Sequence[Array],
    mean: ArrayLike,
    lowest: float,
    largest: float,
) -> Array:
    """Logarithm of the wealth at each look, (…, looks); it falls as `mean` (scalar or (…, 1)) grows.

    `stakes` are shares of the starting wealth that bet side by side. No item's score lies below `lowest`, no unit of the
    suite (asked or not) has more than `largest` items.
    """
    spans = np.diff(np.r_[0, np.asarray(ends, dtype=int)])
    gains = values[..., : ends[-1]] - np.asarray(mean, dtype=float) * sizes[: ends[-1]]
    parts = []
    for stake in stakes:
        per_unit = np.repeat(np.minimum(stake, limit(mean, lowest, largest)), spans, axis=-1)
        grown = np.cumsum(np.log1p(per_unit * gains), axis=-1)
        parts.append(np.take(np.concatenate([np.zeros_like(grown[..., :1]), grown], axis=-1), ends, axis=-1))
    found: Array = np.logaddexp.reduce(parts, axis=0) - log(len(parts))
    return found


def always_valid_p(wealth: Array) -> Array:
    """The smallest level at which the hypothesis was refused up to each look."""
    found: Array = np.exp(-np.maximum(0.0, np.maximum.accumulate(wealth, axis=-1)))
    return found


def always_valid_low(
    values: Array,
    sizes: Array,
    ends: Sequence[int],
    stakes: Sequence[Array],
    alpha: float,
    lowest: float,
    largest: float,
    shown: Sequence[int],
) -> Array:
    """Lower confidence sequence of one stream at the looks `shown`: all of it lies below the mean with 1 - alpha.

    No mean lies above 1. The stakes do not depend on the mean but for the limit, so each look has one root.
    """
    places = np.asarray(shown, dtype=int)
    low, high = np.full(len(places), lowest), np.ones(len(places))
    rows = np.broadcast_to(values, (len(places), values.shape[-1]))
    for _ in range(BOUND_BISECTIONS):
        middle = (low + high) / 2
        wealth = log_wealth(rows, sizes, ends, stakes, middle[:, None], lowest, largest)
        refused = wealth[np.arange(len(places)), places] >= -log(alpha)
        low, high = np.where(refused, middle, low), np.where(refused, high, middle)
    found: Array = np.maximum.accumulate(low)
    return found


def drifts(
    values: Array,
    sizes: Array,
    ends: Sequence[int],
    stakes: Sequence[Array],
    centre: float,
    mean: float,
    lowest: float,
    largest: float,
) -> Array:
    """How far each bet moves against its noise over the whole run, (…, bets): stake x deviation x root of the units."""
    units = ends[-1]
    deviation = np.sqrt(np.mean((values[..., :units] - centre * sizes[:units]) ** 2, axis=-1))
    most = limit(mean, lowest, largest)
    return np.stack([np.minimum(stake[..., -1], most) * deviation * np.sqrt(units) for stake in stakes], axis=-1)


def last_look_alpha(alpha: ArrayLike, share: float, drift: Array, looks: int) -> Array:
    """The level of the fixed-size test at the end of the items, (…), after blocks that were looked at with `share` of alpha.

    At least (1 - share) alpha, the plain split, which needs no assumption. More where paths that reached the line would
    mostly pass at the end too, and need not be counted twice: with c the test's critical value and W Brownian motion at
    time 1, P(W > c) + P(W crosses the line and ends below c) stays at KEPT x alpha. This part is a normal approximation;
    KEPT leaves room for its error, and the bench shows what comes out. `drift` is (…, bets).
    """
    total = np.asarray(alpha, dtype=float)
    each = share * total[..., None] / drift.shape[-1]
    slope = np.maximum(drift, 1e-3)
    height = -np.log(each) / slope + LOOK_CORRECTION / np.sqrt(looks)
    low, high = -ndtri(KEPT * total), -ndtri((1 - share) * total)
    low, high = np.broadcast_arrays(low + 0 * slope[..., 0], high + 0 * slope[..., 0])
    low = np.minimum(low, high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        missed = np.sum(np.exp(-height * slope) * ndtr(middle[..., None] - 2 * height), axis=-1)
        too_much = ndtr(-middle) + missed > KEPT * total
        low, high = np.where(too_much, middle, low), np.where(too_much, high, middle)
    found: Array = ndtr(-high)
    return found


def shared_p(always_valid: float, last: float, share: float, drift: Array, looks: int) -> float:
    """One p-value of both: the smallest alpha at which either the blocks or the last look refuse."""
    low, high = min(last, 1.0), min(1.0, last / (1 - share))
    if last < 0.5:
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            enough = last <= float(last_look_alpha(middle, share, drift, looks))
            low, high = (low, middle) if enough else (middle, high)
    return min(1.0, always_valid / share, high)
