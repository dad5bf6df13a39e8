"""Rules that people gate with, on the bench's simulated releases, many at a time. Not a test.

Each is looked at after every block, because that is what people do; (promoted, rejected, items used), arrays over releases.
statgate's and evalsig's formulas are written out for arrays; gate_packages.py holds them against the packages themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]

from tests.bench.gate_cells import ALPHA, Cell, Draws

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Verdicts = tuple[Flags, Flags, Array]
Method = Callable[[Cell, Draws], Verdicts]

PEER_MIN = 30  # items before a peer's first look; evalsig's own default
STATGATE_MIN = 10  # statgate's default
STATGATE_TINY = 1e-12
EVALSIG_RHO = 1.0


def looks_of(draws: Draws, least: int) -> NDArray[np.int64]:
    items = np.cumsum(draws.sizes).astype(int)[np.asarray(draws.ends) - 1]
    return items[items >= least]


def _first(passed: Flags, failed: Flags, items: NDArray[np.int64], total: int) -> Verdicts:
    looks = passed.shape[1]
    when = [np.where(flags.any(axis=1), flags.argmax(axis=1), looks) for flags in (passed, failed)]
    promoted = (when[0] < looks) & (when[0] <= when[1])
    rejected = (when[1] < looks) & ~promoted
    used = np.where(promoted | rejected, items[np.minimum(np.minimum(*when), looks - 1)], total)
    return promoted, rejected, used.astype(float)


def _moments(single: Array, items: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Mean, sample variance and third central moment of the first `items` differences."""
    powers = [np.cumsum(single**power, axis=1)[:, items - 1] / items for power in (1, 2, 3)]
    mean = powers[0]
    variance = np.maximum(0.0, powers[1] - mean**2) * items / np.maximum(1, items - 1)
    return mean, variance, powers[2] - 3 * mean * powers[1] + 2 * mean**3


def _z_test(z: Array, items: NDArray[np.int64], draws: Draws) -> Verdicts:
    limit = -ndtri(ALPHA)
    return _first(z > limit, z < -limit, items, draws.single.shape[1])


def lm_eval_comparator(cell: Cell, draws: Draws) -> Verdicts:
    """scripts/model_comparator.py of lm-eval: an unpaired z test from both sides' standard errors."""
    items = looks_of(draws, PEER_MIN)
    mean = _moments(draws.single, items)[0]
    errors = sum(_moments(side, items)[1] / items for side in (draws.baseline, draws.baseline + draws.single))
    return _z_test((mean - cell.null) / np.sqrt(np.maximum(errors, 1e-12)), items, draws)


def peeking_z(cell: Cell, draws: Draws) -> Verdicts:
    """The paired z test itself, looked at after every block: what peeking costs."""
    items = looks_of(draws, PEER_MIN)
    mean, variance, _ = _moments(draws.single, items)
    return _z_test((mean - cell.null) / np.sqrt(np.maximum(variance, 1e-12) / items), items, draws)


def bootstrap(cell: Cell, draws: Draws) -> Verdicts:
    """Percentile bootstrap of the paired differences. Its quantiles by the expansion of E. Cornish and R. Fisher (1938) from
    the resampled mean's own moments, so that no resampling noise and no day of computing is added."""
    items = looks_of(draws, PEER_MIN)
    mean, variance, third = _moments(draws.single, items)
    spread = variance * (items - 1) / items
    error = np.sqrt(spread / items)
    skew = np.where(spread > 0, third / np.maximum(spread, 1e-12) ** 1.5, 0.0) / np.sqrt(items)
    low, high = (mean + error * (z + skew * (z * z - 1) / 6) for z in (ndtri(ALPHA), -ndtri(ALPHA)))
    return _first(low > cell.null, high < cell.null, items, draws.single.shape[1])


def statgate(cell: Cell, draws: Draws) -> Verdicts:
    """statgate 0.1.1, sequential: a two-sided mixture SPRT whose scale is the first look's deviation."""
    items = looks_of(draws, STATGATE_MIN)
    mean, variance, _ = _moments(draws.single, items)
    spans = [f.accumulate(draws.single, axis=1)[:, items - 1] for f in (np.maximum, np.minimum)]
    varied = spans[0] - spans[1] >= STATGATE_TINY
    variance = np.maximum(variance, STATGATE_TINY)
    first = varied.argmax(axis=1)[:, None]
    scale = np.maximum(np.take_along_axis(variance, first, axis=1), 1e-12)
    spread = variance + items * scale
    evidence = 0.5 * np.log(variance / spread)
    evidence += items**2 * scale * (mean - cell.null) ** 2 / (2 * variance * spread)
    decided = np.maximum.accumulate(np.where(varied, evidence, 0.0), axis=1) >= -np.log(ALPHA)
    return _first(decided & (mean > cell.null), decided & (mean <= cell.null), items, draws.single.shape[1])


def evalsig(cell: Cell, draws: Draws) -> Verdicts:
    """evalsig 0.1.2, sequential_gate: a confidence sequence with the deviation seen so far, looked at after every item."""
    items = np.arange(PEER_MIN, draws.single.shape[1] + 1)
    mean, variance, _ = _moments(draws.single, items)
    reach = items + EVALSIG_RHO**2
    width = np.sqrt(variance * 2 * reach * np.log(np.sqrt(reach) / (ALPHA * EVALSIG_RHO))) / items
    # where nothing differs its deviation is rounding noise around the margin, and it is sure at once; without a margin never
    width = np.where(variance > 0, width, 0.0 if cell.null else np.inf)
    return _first(mean - width > cell.null, mean + width < cell.null, items, draws.single.shape[1])


METHODS: dict[str, Method] = {
    "lm-eval": lm_eval_comparator,
    "bootstrap": bootstrap,
    "paired z": peeking_z,
    "statgate": statgate,
    "evalsig": evalsig,
}
