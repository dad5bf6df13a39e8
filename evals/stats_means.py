"""Tests and bounds for the mean of bounded scores, whether or not items come in clusters. Pure.

A unit is a cluster of items (one document, one dialogue), or one item where there are no clusters. The mean is over
items: the sum of all values by the number of all items. Its standard error is the cluster-robust one of a ratio,
E. Miller, "Adding error bars to evals", arXiv 2411.00640 (2024), after K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986)
13-22, with the factor G / (G - 1) and Student's t on G - 1 degrees for G units. With units of one item it is the t test.

The t test is sure of what never varies: identical units have no variance at all. So no p-value is below what the rarest
bad item could explain: units that are each at the worst possible value with a small probability, and were not seen to be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

Array = NDArray[np.float64]


def mean_of(values: Array, sizes: Array) -> Array:
    """`values` (…, units) are sums over each unit's items, `sizes` (units) their numbers of items."""
    found: Array = values.sum(axis=-1) / sizes.sum()
    return found


def standard_error(values: Array, sizes: Array) -> Array:
    units = sizes.shape[-1]
    residuals = values - mean_of(values, sizes)[..., None] * sizes
    found: Array = np.sqrt(units / (units - 1) * np.sum(residuals**2, axis=-1)) / sizes.sum()
    return found


def mean_p(values: Array, sizes: Array, bound: float, lowest: float) -> Array:
    """P-value of "the mean is at most `bound`"; no score lies below `lowest`. 1 with fewer than two units."""
    units, mean = sizes.shape[-1], mean_of(values, sizes)
    if units < 2:
        return np.ones_like(mean)
    error = standard_error(values, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_t = np.where(error > 0, stdtr(units - 1, (bound - mean) / error), 0.0)
        unseen = np.where(mean > lowest, (max(0.0, bound - lowest) / (mean - lowest)) ** units, 1.0)
    found: Array = np.where(mean > bound, np.maximum(by_t, np.minimum(1.0, unseen)), np.maximum(by_t, 0.5))
    return found


def mean_low(values: Array, sizes: Array, alpha: float, lowest: float) -> Array:
    """The bound at which `mean_p` is `alpha` (below one half); `lowest` with fewer than two units."""
    units, mean = sizes.shape[-1], mean_of(values, sizes)
    if units < 2:
        return np.full_like(mean, lowest)
    by_t = mean + stdtrit(units - 1, alpha) * standard_error(values, sizes)
    unseen = lowest + (mean - lowest) * alpha ** (1 / units)
    found: Array = np.maximum(lowest, np.minimum(by_t, unseen))
    return found
