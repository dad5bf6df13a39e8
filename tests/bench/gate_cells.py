"""Simulated releases: paired scores of a baseline and a candidate whose true difference is known. Not a test."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evals.gate_policy import RuleName
from evals.gate_rules import Rule
from evals.power import items_for, paired_deviation

Array = NDArray[np.float64]
Kind = Literal["binary", "clusters", "graded", "slices", "floor"]

ALPHA, POWER, BLOCK = 0.05, 0.95, 8
CONCENTRATION = 3.0  # of a cluster's own rates around the suite's: intra-cluster correlation 1 / (1 + 3)
CLUSTER_SIZES = (1, 2, 4, 8, 10)
GRADED_CHANGED, GRADES = 0.4, (0.25, 0.5, 0.75)
SLICE_GAPS = (-0.15, 0.0, 0.05, 0.10)  # of four equal slices, around the suite's difference


@dataclass(frozen=True)
class Cell:
    """`items` is what the fixed-size paired test needs for the margin at 95/95, unless a cell says otherwise."""

    kind: Kind
    rule: RuleName
    bound: float
    rate: float
    correlation: float
    items: int

    @property
    def gate_rule(self) -> Rule:
        return Rule(self.rule, self.bound)

    @property
    def null(self) -> float:
        """The difference (the rate, for a floor) at which a promotion is just false."""
        return self.gate_rule.passes_above

    @property
    def name(self) -> str:
        return f"{self.kind:8} {self.rule:12} {self.bound:.2f}  {self.rate:.2f}  {self.correlation:.1f}"


@dataclass(frozen=True)
class Draws:
    """`values` (releases, units) and `sizes` (units) as the gate takes them; `single` (releases, items) unclustered.

    `baseline` (releases, items) are the baseline's own scores, which only lm-eval's comparator needs.
    """

    values: Array
    sizes: Array
    ends: tuple[int, ...]
    single: Array
    baseline: Array


def cell(kind: Kind, rule: RuleName, bound: float, rate: float, correlation: float, effect: float = 0.0) -> Cell:
    """`effect` is the gap that the suite is made for; the margin unless given."""
    deviation = paired_deviation(rate, correlation)
    needed = items_for(deviation, effect or bound, ALPHA, POWER)
    assert needed is not None
    if kind == "clusters":
        mean_size = float(np.mean(np.square(CLUSTER_SIZES)) / np.mean(CLUSTER_SIZES))
        needed = ceil(needed * (1 + (mean_size - 1) / (1 + CONCENTRATION)))
        needed = ceil(needed / sum(CLUSTER_SIZES)) * sum(CLUSTER_SIZES)
    return Cell(kind, rule, bound, rate, correlation, needed)


def flips(rate: float, correlation: float, difference: float) -> tuple[float, float]:
    """Probabilities that an item goes from wrong to right and from right to wrong."""
    new = rate + difference
    both = rate * new + correlation * sqrt(rate * (1 - rate) * new * (1 - new))
    both = min(both, rate, new)
    return new - both, rate - both


def draw(cell: Cell, difference: float, releases: int, random: np.random.Generator) -> Draws:
    """`difference` is the candidate's true one; for a floor its true rate."""
    if cell.kind == "clusters":
        return _clusters(cell, difference, releases, random)
    if cell.kind == "floor":
        single = (random.random((releases, cell.items)) < difference).astype(float)
        return _plain(single, np.zeros_like(single))
    if cell.kind == "graded":
        return _plain(*_graded(cell, difference, releases, random))
    gaps = np.zeros(cell.items)
    if cell.kind == "slices":
        gaps = np.resize(SLICE_GAPS, cell.items)  # in proportion in each block, as the gate's order is
    better, worse = np.array([flips(cell.rate, cell.correlation, difference + gap) for gap in gaps]).T
    uniform = random.random((releases, cell.items))
    up, down = uniform < better, uniform > 1 - worse
    return _plain(up.astype(float) - down, _baseline(up, down, cell.rate, random))


def _plain(single: Array, baseline: Array) -> Draws:
    items = single.shape[1]
    ends = (*range(BLOCK, items, BLOCK), items)
    return Draws(single, np.ones(items), ends, single, baseline)


def _baseline(up: NDArray[np.bool_], down: NDArray[np.bool_], rate: float, random: np.random.Generator) -> Array:
    """The baseline's scores: 0 where the item was won, 1 where it was lost, right at the rate that is left elsewhere."""
    agree = min(1.0, max(0.0, (rate - down.mean()) / max(1e-9, 1 - up.mean() - down.mean())))
    found: Array = np.where(up, 0.0, np.where(down, 1.0, random.random(up.shape) < agree))
    return found


def _clusters(cell: Cell, difference: float, releases: int, random: np.random.Generator) -> Draws:
    sizes = np.resize(CLUSTER_SIZES, len(CLUSTER_SIZES) * (cell.items // sum(CLUSTER_SIZES)))
    better, worse = flips(cell.rate, cell.correlation, difference)
    own = [
        random.gamma(CONCENTRATION * share, size=(releases, len(sizes)))
        for share in (better, worse, 1 - better - worse)
    ]
    total = own[0] + own[1] + own[2]
    uniform = random.random((releases, int(sizes.sum())))
    up = uniform < np.repeat(own[0] / total, sizes, axis=1)
    down = uniform > 1 - np.repeat(own[1] / total, sizes, axis=1)
    single = up.astype(float) - down
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    ends, asked = [], 0
    for unit, size in enumerate(sizes, 1):
        asked += int(size)
        if asked >= BLOCK or unit == len(sizes):
            ends.append(unit)
            asked = 0
    values = np.add.reduceat(single, starts, axis=1)
    return Draws(values, sizes.astype(float), tuple(ends), single, _baseline(up, down, cell.rate, random))


def _graded(cell: Cell, difference: float, releases: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Differences, and the baseline's scores, which lie anywhere that leaves the candidate's in [0, 1]."""
    grades = random.choice(GRADES, size=(releases, cell.items))
    uniform = random.random((releases, cell.items))
    lean = difference / np.mean(GRADES)
    up, down = uniform < (GRADED_CHANGED + lean) / 2, uniform > 1 - (GRADED_CHANGED - lean) / 2
    single: Array = grades * (up.astype(float) - down)
    return single, np.maximum(0.0, -single) + random.random(single.shape) * (1 - np.abs(single))
