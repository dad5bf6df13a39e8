"""Simulated canary requests with a known truth, many rollouts at a time, and rules in common use on the same draws. Not a test.

Values are (rollouts, requests). Kayenta's rule is its MannWhitneyClassifier: High where the lower end of the confidence interval
of the shift (the interval of R's wilcox.test) lies above tolerance x |Hodges-Lehmann estimate|.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]

from serving.rollout.bets import bets_on_events, bets_on_limit, bets_on_times

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TIMES = ("first_token", "inter_token", "per_token", "longer", "shorter")
EVENTS = {"errors": 0.01, "cut": 0.10, "empty": 0.005, "refused": 0.02, "flagged": 0.002}
KAYENTA_TOLERANCE, KAYENTA_CONFIDENCE = 0.25, 0.98
LOOKS = tuple(range(10, 101, 5))  # requests of each side, for the peers
FIXED_RATIO, FIXED_MORE = 1.25, 0.02


@dataclass(frozen=True)
class Noise:
    """How times scatter around their middle. `drift` is a load that comes and goes, for both versions at once."""

    name: str
    sigma: float
    tail: float = 0.0
    drift: float = 0.0

    def draw(self, random: np.random.Generator, shape: tuple[int, int]) -> Array:
        """Logarithms of times."""
        found = random.normal(0, self.sigma, shape)
        if self.tail:
            found += (random.random(shape) < self.tail) * random.exponential(1.5, shape)
        if self.drift:
            phase = random.uniform(0, 2 * np.pi, (shape[0], 1))
            found += self.drift * np.sin(phase + np.arange(shape[1]) / 15)
        return found


@dataclass(frozen=True)
class Draws:
    """One step of many rollouts: who answered, and each metric's values."""

    canary: Flags
    weight: float
    values: dict[str, Array]


def draw(
    noise: Noise, rollouts: int, requests: int, weight: float, random: np.random.Generator, slower: float = 1.0
) -> Draws:
    """The candidate's first token takes `slower` times as long; nothing else differs."""
    shape = (rollouts, requests)
    canary = random.random(shape) < weight
    values = {name: noise.draw(random, shape) for name in TIMES}
    values["first_token"] = values["first_token"] + canary * np.log(slower)
    values |= {name: (random.random(shape) < rate).astype(float) for name, rate in EVENTS.items()}
    return Draws(canary, weight, values)


def liftlock(draws: Draws, each: float, error_limit: float) -> NDArray[np.int64]:
    """The request after which each rollout is undone; one more than there are: never."""
    needed, refused = -np.log(each), np.zeros(draws.canary.shape, dtype=bool)
    for name, values in draws.values.items():
        bets = bets_on_times if name in TIMES else bets_on_events
        refused |= bets(values, draws.canary, draws.weight) >= needed
    refused |= bets_on_limit(draws.values["errors"], draws.canary, error_limit) >= needed
    return first(refused)


def passes(draws: Draws, regression: float, beta: float, least: int) -> NDArray[np.int64]:
    """The request after which the first token is shown not to be `regression` times as slow; `least` of each side are needed."""
    moved = -(draws.values["first_token"] - draws.canary * np.log(regression))
    shown = np.maximum.accumulate(bets_on_times(moved, draws.canary, draws.weight), axis=1) >= -np.log(beta)
    enough = np.minimum(np.cumsum(draws.canary, axis=1), np.cumsum(~draws.canary, axis=1)) >= least
    return first(shown & enough)


def first(hits: Flags) -> NDArray[np.int64]:
    """Requests up to the first hit."""
    return np.asarray(np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, hits.shape[1] + 1))


def per_side(draws: Draws, name: str, most: int) -> tuple[Array, Array]:
    """The first `most` values of stable and of the candidate; NaN where there are not as many."""
    found = []
    for mask in (~draws.canary, draws.canary):
        order = np.argsort(~mask, axis=1, kind="stable")[:, :most]
        values = np.take_along_axis(draws.values[name], order, axis=1)
        found.append(np.where(np.take_along_axis(mask, order, axis=1), values, np.nan))
    return found[0], found[1]


def looked_at(draws: Draws, rule: Callable[[Array, Array, bool], Flags]) -> NDArray[np.int64]:
    """Requests of both sides after which the rule undoes, at the LOOKS; 2 x the last + 1: never."""
    undone = np.full(len(draws.canary), 2 * LOOKS[-1] + 1)
    for name in draws.values:
        stable, candidate = per_side(draws, name, LOOKS[-1])
        time = name in TIMES
        for look in LOOKS:
            sides = [np.exp(side[:, :look]) if time else side[:, :look] for side in (stable, candidate)]
            hit = rule(sides[0], sides[1], time) & ~np.isnan(sides[1][:, -1]) & ~np.isnan(sides[0][:, -1])
            undone = np.where(hit, np.minimum(undone, 2 * look), undone)
    return undone


def kayenta(stable: Array, candidate: Array, time: bool) -> Flags:
    """The classification High of one metric, for equally many values of both sides."""
    if not time:  # more than half of the shifts are 0, and so are the interval's end and the estimate
        return np.zeros(len(stable), dtype=bool)
    count = stable.shape[1]
    deviation = np.sqrt(count * count * (2 * count + 1) / 12)
    place = max(int(count * count / 2 - ndtri(1 - (1 - KAYENTA_CONFIDENCE) / 2) * deviation), 0)
    middle = count * count // 2
    found = np.empty(len(stable), dtype=bool)
    for begin in range(0, len(stable), 250):
        rows = slice(begin, begin + 250)
        shifts = (candidate[rows, :, None] - stable[rows, None, :]).reshape(-1, count * count)
        shifts.partition((place, middle), axis=1)
        found[rows] = shifts[:, place] > KAYENTA_TOLERANCE * np.abs(shifts[:, middle])
    return found


def fixed(stable: Array, candidate: Array, time: bool) -> Flags:
    """A median that is a quarter higher, or two percent more events."""
    if time:
        return np.asarray(np.median(candidate, axis=1) > FIXED_RATIO * np.median(stable, axis=1))
    return np.asarray(candidate.mean(axis=1) > stable.mean(axis=1) + FIXED_MORE)
