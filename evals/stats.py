"""Intervals and tests for paired scores. Pure arithmetic; it gives no verdict.

Two-sided intervals have coverage 1 - alpha. Sources:
- Paired proportions: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
  paired-sample design", Statistics in Medicine 17 (1998) 891-908. Chosen because it inverts the score test that a
  non-inferiority decision is (at difference 0 it is McNemar's), keeps a width when no pair disagrees, and is among the
  recommended of M. W. Fagerland, S. Lydersen, P. Laake, Statistics in Medicine 33 (2014) 2850-2875.
- One proportion: E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
- Exact test: Q. McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution of the discordant pairs.
- Graded scores: Student's t on the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist, fmean, stdev

BISECTIONS = 60  # halves of a bracket of width 2: below the spacing of floats near 1


@dataclass(frozen=True)
class PairedDifference:
    """The mean of candidate - baseline over the pairs. `p_value` (exact McNemar) is for binary scores only."""

    estimate: float
    low: float
    high: float
    better: int
    worse: int
    n: int
    method: str
    p_value: float | None


def wilson_interval(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """For a proportion of `n` independent trials."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} trials")
    z = _z(alpha)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided p-value: as many discordant pairs, each better or worse with probability one half."""
    pairs = better + worse
    tail = sum(comb(pairs, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


def tango_interval(better: int, worse: int, n: int, alpha: float) -> tuple[float, float]:
    """For (better - worse) / n, where `better` pairs go 0 to 1, `worse` go 1 to 0, and the others agree."""
    if min(better, worse) < 0 or better + worse > n or n < 1:
        raise ValueError(f"{better} better and {worse} worse of {n} pairs")
    z = _z(alpha)
    estimate = (better - worse) / n
    return _cross(better, worse, n, z, -1.0, estimate), _cross(better, worse, n, -z, estimate, 1.0)


def paired_difference(candidate: Sequence[float], baseline: Sequence[float], alpha: float) -> PairedDifference:
    """Tango's interval where every score is 0 or 1, otherwise Student's t. ValueError with fewer than two pairs."""
    if len(candidate) != len(baseline) or len(candidate) < 2:
        raise ValueError(f"{len(candidate)} candidate and {len(baseline)} baseline scores; two pairs are needed")
    differences = [new - old for new, old in zip(candidate, baseline, strict=True)]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n, estimate = len(differences), fmean(differences)
    if {*candidate, *baseline} <= {0.0, 1.0}:
        low, high = tango_interval(better, worse, n, alpha)
        return PairedDifference(estimate, low, high, better, worse, n, "Tango score", mcnemar_exact(better, worse))
    half = _t(alpha, n - 1) * stdev(differences) / sqrt(n)
    return PairedDifference(estimate, estimate - half, estimate + half, better, worse, n, "Student's t", None)


def mean_interval(scores: Sequence[float], alpha: float) -> tuple[float, float]:
    """For the mean of one model's scores: Wilson where all are 0 or 1, otherwise Student's t."""
    if set(scores) <= {0.0, 1.0}:
        return wilson_interval(round(sum(scores)), len(scores), alpha)
    half = _t(alpha, len(scores) - 1) * stdev(scores) / sqrt(len(scores))
    return fmean(scores) - half, fmean(scores) + half


def _z(alpha: float) -> float:
    quantile: float = NormalDist().inv_cdf(1 - alpha / 2)
    return quantile


def _t(alpha: float, degrees: int) -> float:
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # only graded scores need it

    return float(stdtrit(degrees, 1 - alpha / 2))


def _score(better: int, worse: int, n: int, delta: float) -> float:
    """Tango's statistic at the hypothesis that the difference is `delta`; it falls as delta grows.

    `worse_probability` is the maximum-likelihood probability of a worse pair under that hypothesis (his equation for
    q21), the larger root of 2n x^2 + b x + c = 0.
    """
    b = -better - worse + (2 * n - better + worse) * delta
    c = -worse * delta * (1 - delta)
    worse_probability = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * worse_probability + delta * (1 - delta))
    distance = better - worse - n * delta
    if variance <= 0:
        return float("inf") if distance > 0 else float("-inf") if distance < 0 else 0.0
    return distance / sqrt(variance)


def _cross(better: int, worse: int, n: int, level: float, low: float, high: float) -> float:
    """Where the falling statistic crosses `level`, by bisection."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _score(better, worse, n, middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
