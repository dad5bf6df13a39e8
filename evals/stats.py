"""Tests and bounds for right-or-wrong scores: one proportion, and the difference of two that are paired. Pure.

Every test is one-sided, every bound holds with probability 1 - alpha on its own side. Sources:
- Paired proportions: the score statistic of T. Tango, "Equivalence test and confidence interval for the difference in
  proportions for the paired-sample design", Statistics in Medicine 17 (1998) 891-908. Its normal approximation can
  promote a little more often than alpha, so the p-value is exact and unconditional: the largest probability, over the
  one unknown rate of the null hypothesis, of a statistic at least as large. A. Hsueh, J.-P. Liu, J. J. Chen,
  "Unconditional exact tests for equivalence or noninferiority for paired binary endpoints", Biometrics 57 (2001) 478-483.
- One proportion: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413 (never below its level); for drawing, where
  a bound need not hold exactly, E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betainc, betaincinv  # type: ignore[import-untyped]

Array = NDArray[np.float64]

BISECTIONS = 60  # halves of a bracket of width 2: below the spacing of floats near 1
RATES = 48  # points of the unknown rate that are tried, and again around the worst of them
TAIL_SDS = 9.0  # counts further out have a probability below 1e-18


def wilson_interval(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Two-sided, coverage 1 - alpha, for a proportion of `n` independent trials."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} trials")
    z = NormalDist().inv_cdf(1 - alpha / 2)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion_p(successes: int, n: int, rate: float) -> float:
    """Probability of at least as many successes where each has the probability `rate`."""
    return 1.0 if successes == 0 else float(betainc(successes, n - successes + 1, rate))


def proportion_low(successes: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's lower bound."""
    return 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, alpha))


def tango_statistic(better: ArrayLike, worse: ArrayLike, n: int, delta: float) -> Array:
    """Standardised distance of (better - worse) / n from `delta`; it grows with `better` and falls with `worse`.

    `better` pairs go 0 to 1, `worse` go 1 to 0, the others agree; shapes broadcast. The probability of a worse pair is
    its maximum-likelihood value when the true difference is `delta`: the larger root of 2n x^2 + b x + c = 0.
    """
    up, down = np.asarray(better, dtype=float), np.asarray(worse, dtype=float)
    b = -up - down + (2 * n - up + down) * delta
    c = -down * delta * (1 - delta)
    worse_rate = (np.sqrt(np.maximum(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * worse_rate + delta * (1 - delta))
    distance = up - down - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(variance > 1e-12, distance / np.sqrt(variance), np.sign(distance) * np.inf)
    return np.where(distance == 0, 0.0, found)


def tango_low(better: int, worse: int, n: int, z: float) -> float:
    """The difference at which the statistic falls to `z`; -1 where it never rises above it."""
    low, high = -1.0, (better - worse) / n
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if tango_statistic(better, worse, n, middle) > z else (low, middle)
    return (low + high) / 2


def paired_p(better: int, worse: int, n: int, delta: float) -> float:
    """Exact p-value of "the difference is at most `delta`" against "it is larger"."""
    if min(better, worse) < 0 or better + worse > n or n < 1:
        raise ValueError(f"{better} better and {worse} worse of {n} pairs")
    return exact_p(float(tango_statistic(better, worse, n, delta)), n, delta)


@lru_cache(maxsize=4096)
def exact_p(statistic: float, n: int, delta: float) -> float:
    """Largest probability of a Tango statistic of at least `statistic` in `n` pairs whose difference is `delta`."""
    lowest, highest = max(0.0, -delta), (1 - delta) / 2
    needed = _region(statistic - 1e-9, n, delta)
    rates = lowest + (highest - lowest) * np.linspace(0.0, 1.0, RATES) ** 2
    chances = _chances(rates, needed, n, delta)
    worst = int(np.argmax(chances))
    near = np.linspace(rates[max(0, worst - 1)], rates[min(RATES - 1, worst + 1)], RATES // 3)
    return min(1.0, float(max(chances.max(), _chances(near, needed, n, delta).max())))


def _region(statistic: float, n: int, delta: float) -> NDArray[np.int64]:
    """For each count of worse pairs, the fewest better ones that reach the statistic (one too many: none do)."""
    worse = np.arange(n + 1)
    low, high = np.full(n + 1, -1), n - worse + 1  # the statistic is below at `low` and reached at `high`
    while np.any(high - low > 1):
        middle = np.clip((low + high) // 2, 0, n - worse)
        reached = (tango_statistic(middle, worse, n, delta) >= statistic) | (high - low <= 1)
        narrow = high - low > 1
        high, low = np.where(narrow & reached, middle, high), np.where(narrow & ~reached, middle, low)
    return high


def _chances(rates: Array, needed: NDArray[np.int64], n: int, delta: float) -> Array:
    """Probability of the region for each probability of a worse pair."""
    spread = TAIL_SDS * np.sqrt(n * rates * (1 - rates)) + TAIL_SDS
    width = min(n, int(2 * spread.max())) + 1
    first = np.clip((n * rates - spread).astype(int), 0, n + 1 - width)[:, None]
    worse = first + np.arange(width)
    at_most = bdtr(worse, n, rates[:, None])
    before = np.where(first > 0, bdtr(np.maximum(first - 1, 0), n, rates[:, None]), 0.0)
    weights = np.diff(at_most, axis=1, prepend=before)
    fewest, rest = needed[worse], n - worse
    better_rate = np.clip((rates + delta) / np.maximum(1 - rates, 1e-300), 0.0, 1.0)[:, None]
    tails = np.zeros(weights.shape)
    some = (weights > 1e-17) & (fewest <= rest) & (fewest > 0)
    tails[some] = betainc(fewest[some], (rest - fewest + 1)[some], np.broadcast_to(better_rate, some.shape)[some])
    tails[fewest <= 0] = 1.0
    found: Array = np.sum(weights * tails, axis=1)
    return found


@lru_cache(maxsize=256)
def critical_value(n: int, delta: float, alpha: float) -> float:
    """Just below the smallest attainable statistic whose exact p-value is at most `alpha`; infinite where there is none."""
    low, high = _bracket(n, delta, alpha)
    while high - low > 1e-3 and high < float("inf"):
        middle = (low + high) / 2
        low, high = (middle, high) if exact_p(middle, n, delta) > alpha else (low, middle)
    worse, needed = np.arange(n + 1), _region(low, n, delta)
    able = needed <= n - worse
    between = tango_statistic(needed[able], worse[able], n, delta)
    attained = np.unique(between[between <= high])
    # the region shrinks as the statistic grows, and so does its probability: by halves, for there are ever more of them
    first = bisect_left(attained, True, key=lambda value: exact_p(float(value), n, delta) <= alpha)
    return float(attained[first] if first < len(attained) else high) - 1e-9


def _bracket(n: int, delta: float, alpha: float) -> tuple[float, float]:
    normal, step = NormalDist().inv_cdf(1 - alpha), 0.25
    low, high = normal - step, normal + step
    while exact_p(low, n, delta) <= alpha:
        low -= step
    while exact_p(high, n, delta) > alpha:
        if high > 2 * sqrt(n) + 2:  # beyond every statistic
            return low, float("inf")
        low, high, step = high, high + step, 2 * step
    return low, high


def paired_low(better: int, worse: int, n: int, delta: float, alpha: float) -> float:
    """Lower bound of the difference by Tango's statistic, at the value that makes its test exact at `delta`.

    It lies above `delta` exactly where `paired_p` is at most `alpha`.
    """
    return tango_low(better, worse, n, critical_value(n, delta, alpha))
