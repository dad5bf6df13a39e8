"""Gates on simulated releases, many at a time: Liftlock's own arithmetic, and rules that are in common use. Not a test.

Each method gives (promoted, rejected, items used), arrays over releases. The peers look after every block, because that
is what people do; their formulas are written out for arrays here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]

from evals import sequential
from evals.gate_rules import Side, Stream, sides
from evals.stats import critical_value, proportion_p, tango_statistic
from evals.stats_means import mean_p
from tests.bench.gate_cells import ALPHA, Cell, Draws

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Verdicts = tuple[Flags, Flags, Array]

LEVEL_STEP = 1e-3  # last-look levels are rounded down to a multiple, so that few exact tests are needed
PEER_MIN = 30  # items before a peer's first look
BOOTSTRAP_EVERY, RESAMPLES = 5, 400  # blocks between its looks


def liftlock(cell: Cell, draws: Draws) -> Verdicts:
    """The product's functions on many releases: blocks first, then the last look."""
    stream = _as_stream(cell, draws)
    passing, failing = sides(cell.gate_rule, stream)
    pass_look, pass_last = _side(passing, cell)
    fail_look, fail_last = _side(failing, cell)
    looks, items = len(draws.ends), np.cumsum(draws.sizes)[np.asarray(draws.ends) - 1]
    promoted = (pass_look < looks) & (pass_look <= fail_look)
    rejected = (fail_look < looks) & ~promoted
    open_ = ~promoted & ~rejected
    used = items[np.minimum(np.minimum(pass_look, fail_look), looks - 1)]
    return promoted | (open_ & pass_last), rejected | (open_ & ~pass_last & fail_last), used


def _as_stream(cell: Cell, draws: Draws) -> Stream:
    binary, items = cell.kind in ("binary", "slices", "floor"), draws.single.shape[1]
    return Stream(draws.values, draws.sizes, draws.ends, binary, True, True, items, int(draws.sizes.max()))


def _side(side: Side, cell: Cell) -> tuple[NDArray[np.int64], Flags]:
    """The look at which the blocks refuse (one too many: never), and whether the last look does."""
    stream, stakes = side.stream, side.stakes()
    wealth = sequential.log_wealth(
        stream.values, stream.sizes, stream.ends, stakes, side.mean, side.lowest, stream.largest
    )
    refused = wealth >= -np.log(side.share * ALPHA)
    look = np.where(refused.any(axis=1), refused.argmax(axis=1), len(stream.ends))
    centre = side.mean if side.lowest == 0 else 0.0
    drift = sequential.drifts(
        stream.values, stream.sizes, stream.ends, stakes, centre, side.mean, side.lowest, stream.largest
    )
    level = sequential.last_look_alpha(ALPHA, side.share, drift, len(stream.ends))
    return look, _refuses(side, level)


def _refuses(side: Side, level: Array) -> Flags:
    """Whether the fixed-size test refuses at each release's level."""
    stream = side.stream
    if not stream.binary:
        return mean_p(stream.values, stream.sizes, side.mean, side.lowest) <= level
    better, worse = (stream.values > 0).sum(axis=1), (stream.values < 0).sum(axis=1)
    n = stream.values.shape[1]
    if side.lowest == 0:
        by_count = np.array([proportion_p(count, n, side.mean) for count in range(n + 1)])
        return by_count[better] <= level
    rounded = np.floor(level / LEVEL_STEP).astype(int)
    values = {step: critical_value(n, side.mean, step * LEVEL_STEP) for step in set(rounded.tolist())}
    found: Flags = tango_statistic(better, worse, n, side.mean) >= np.array([values[step] for step in rounded.tolist()])
    return found


def fixed(cell: Cell, draws: Draws) -> Flags:
    """The fixed-size exact (for clusters and grades: robust t) test at all items, at the whole of alpha."""
    stream = _as_stream(cell, draws)
    passing, _ = sides(cell.gate_rule, stream)
    return _refuses(passing, np.full(len(draws.values), ALPHA + 1e-12))


def _looks(draws: Draws) -> NDArray[np.int64]:
    return np.cumsum(draws.sizes).astype(int)[np.asarray(draws.ends) - 1]


def _first(passed: Flags, failed: Flags, items: NDArray[np.int64], total: int) -> Verdicts:
    looks = passed.shape[1]
    when = [np.where(flags.any(axis=1), flags.argmax(axis=1), looks) for flags in (passed, failed)]
    promoted = (when[0] < looks) & (when[0] <= when[1])
    rejected = (when[1] < looks) & ~promoted
    used = np.where(promoted | rejected, items[np.minimum(np.minimum(*when), looks - 1)], total)
    return promoted, rejected, used.astype(float)


def _moments(single: Array, items: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean and sample variance of the first `items` differences."""
    sums, squares = np.cumsum(single, axis=1)[:, items - 1], np.cumsum(single**2, axis=1)[:, items - 1]
    mean = sums / items
    return mean, np.maximum(0.0, (squares - items * mean**2) / np.maximum(1, items - 1))


def lm_eval_comparator(cell: Cell, draws: Draws) -> Verdicts:
    """scripts/model_comparator.py of lm-eval: an unpaired z test from both sides' standard errors."""
    items = _looks(draws)
    items = items[items >= PEER_MIN]
    mean, _ = _moments(draws.single, items)
    errors = sum(_moments(side, items)[1] / items for side in (draws.baseline, draws.baseline + draws.single))
    return _z_test((mean - cell.null) / np.sqrt(np.maximum(errors, 1e-12)), items, draws)


def _z_test(z: Array, items: NDArray[np.int64], draws: Draws) -> Verdicts:
    limit = -ndtri(ALPHA)
    return _first(z > limit, z < -limit, items, draws.single.shape[1])


def bootstrap(cell: Cell, draws: Draws) -> Verdicts:
    """Percentile bootstrap of the paired differences, drawn afresh at each look."""
    looks = _looks(draws)[BOOTSTRAP_EVERY - 1 :: BOOTSTRAP_EVERY]
    up, down = (np.cumsum(draws.single * sign > 0, axis=1)[:, looks - 1] for sign in (1, -1))
    random = np.random.default_rng(0)
    passed, failed = np.zeros(up.shape, dtype=bool), np.zeros(up.shape, dtype=bool)
    for look, items in enumerate(looks.tolist()):
        tables, where = np.unique(np.stack([up[:, look], down[:, look]], axis=1), axis=0, return_inverse=True)
        rates = np.c_[tables, items - tables.sum(axis=1)] / items
        again = random.multinomial(items, np.repeat(rates, RESAMPLES, axis=0))
        means = np.sort(((again[:, 0] - again[:, 1]) / items).reshape(len(tables), RESAMPLES), axis=1)
        tail = int(ALPHA * RESAMPLES)
        passed[:, look] = (means[:, tail] > cell.null)[where.ravel()]
        failed[:, look] = (means[:, -tail - 1] < cell.null)[where.ravel()]
    return _first(passed, failed, looks, draws.single.shape[1])


def peeking_z(cell: Cell, draws: Draws) -> Verdicts:
    """The paired z test itself, looked at after every block: what peeking costs."""
    items = _looks(draws)
    items = items[items >= PEER_MIN]
    mean, variance = _moments(draws.single, items)
    return _z_test((mean - cell.null) / np.sqrt(np.maximum(variance, 1e-12) / items), items, draws)


Method = Callable[[Cell, Draws], Verdicts]
METHODS: dict[str, Method] = {
    "liftlock": liftlock,
    "lm-eval": lm_eval_comparator,
    "bootstrap": bootstrap,
    "paired z": peeking_z,
}
