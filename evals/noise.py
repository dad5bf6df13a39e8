"""The noise floor of a suite: how much the same model differs from itself between two runs. Pure.

Batch composition, kernels and sampling change some answers. Such flips shift a mean by chance; a margin smaller than the
shift that noise alone makes once in 1 / alpha says nothing. The rate of flips is taken at its upper bound, so two runs
without a flip do not claim that there are none (Clopper and Pearson 1934; a t bound for graded scores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean

import numpy as np

from evals.stats import proportion_low
from evals.stats_means import mean_low


class NoiseUnmeasured(Exception):
    """The two runs cannot be compared: no items, or not the same ones."""


@dataclass(frozen=True)
class NoiseFloor:
    """`flipped` are ids whose score differs between the runs; `smallest_margin` is the least that is above the noise.

    `flip_rate` is the mean squared difference, which for right-or-wrong scores is the share of flipped items.
    """

    items: int
    flipped: tuple[str, ...]
    flip_rate: float
    flip_rate_high: float
    difference: float
    smallest_margin: float
    alpha: float

    def allows(self, margin: float) -> bool:
        return margin >= self.smallest_margin


def noise_floor(first: Mapping[str, float], second: Mapping[str, float], alpha: float) -> NoiseFloor:
    """From two runs of one model, scores in [0, 1] by item id. Raises NoiseUnmeasured."""
    if len(first) < 2 or set(first) != set(second):
        odd = sorted(set(first) ^ set(second))
        raise NoiseUnmeasured(
            f"the two runs have {len(first)} and {len(second)} items, {len(odd)} of them in one run only"
            f"{f', such as {odd[0]!r}' if odd else ''}; both runs need the same two or more items: run the suite twice"
        )
    names = list(first)
    differences = [second[name] - first[name] for name in names]
    high = _upper(differences, alpha)
    difference = fmean(differences)
    return NoiseFloor(
        items=len(names),
        flipped=tuple(name for name, gap in zip(names, differences, strict=True) if gap != 0),
        flip_rate=fmean(gap * gap for gap in differences),
        flip_rate_high=high,
        difference=difference,
        smallest_margin=max(abs(difference), NormalDist().inv_cdf(1 - alpha) * sqrt(high / len(names))),
        alpha=alpha,
    )


def _upper(differences: list[float], alpha: float) -> float:
    """Upper bound of the mean squared difference."""
    same = [1 - gap * gap for gap in differences]
    if set(same) <= {0.0, 1.0}:
        return 1 - proportion_low(round(sum(same)), len(same), alpha)
    return 1 - float(mean_low(np.array(same), np.ones(len(same)), alpha, 0.0))
