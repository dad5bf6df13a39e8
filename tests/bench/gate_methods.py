"""Liftlock's gate, and the fixed-size test it is held against, on simulated releases, many at a time. Not a test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evals import sequential
from evals.gate_rules import Side, Stream, sides
from evals.stats import critical_value, proportion_p, tango_statistic
from evals.stats_means import mean_p
from tests.bench.gate_cells import ALPHA, Cell, Draws

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Verdicts = tuple[Flags, Flags, Array]

LEVEL_STEP = 1e-3  # last-look levels are rounded down to a multiple, so that few exact tests are needed


def liftlock(cell: Cell, draws: Draws) -> Verdicts:
    """(promoted, rejected, items used) by the product's functions: blocks first, then the last look."""
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
