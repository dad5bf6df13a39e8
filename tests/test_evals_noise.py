"""The noise floor: what two runs of one model say about the margins that mean anything."""

from __future__ import annotations

import random

import pytest
from scipy import stats  # type: ignore[import-untyped]

from evals.noise import NoiseUnmeasured, noise_floor


def scores(count: int, flipped: int) -> tuple[dict[str, float], dict[str, float]]:
    first = {f"i{n}": float(n % 2) for n in range(count)}
    return first, {name: 1 - score if n < flipped else score for n, (name, score) in enumerate(first.items())}


def test_flips_are_named_and_their_rate_has_an_upper_bound() -> None:
    floor = noise_floor(*scores(200, 6), alpha=0.05)
    assert (floor.items, floor.flipped, floor.flip_rate) == (200, tuple(f"i{n}" for n in range(6)), 0.03)
    high = stats.binomtest(6, 200, alternative="less").proportion_ci(0.95).high
    assert floor.flip_rate_high == pytest.approx(high)
    assert floor.smallest_margin == pytest.approx(1.6448536 * (high / 200) ** 0.5)
    assert floor.allows(0.05)
    assert not floor.allows(0.01)


def test_two_equal_runs_do_not_claim_that_there_is_no_noise() -> None:
    floor = noise_floor(*scores(100, 0), alpha=0.05)
    assert floor.flipped == ()
    assert floor.flip_rate_high == pytest.approx(1 - 0.05 ** (1 / 100))
    assert floor.smallest_margin > 0


def test_noise_alone_rarely_shifts_a_mean_by_more_than_the_floor() -> None:
    draw, beyond = random.Random(4), 0
    for _ in range(300):
        first = {f"i{n}": float(draw.random() < 0.8) for n in range(150)}
        again = [{name: 1 - s if draw.random() < 0.04 else s for name, s in first.items()} for _ in range(3)]
        floor = noise_floor(again[0], again[1], 0.05)
        beyond += sum(again[2].values()) - sum(again[0].values()) > floor.smallest_margin * 150
    assert beyond <= 300 * 0.05 + 3 * (300 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("second", [{}, {"i0": 1.0, "other": 0.0}])
def test_runs_that_do_not_pair_are_refused(second: dict[str, float]) -> None:
    with pytest.raises(NoiseUnmeasured, match="run the suite twice"):
        noise_floor({"i0": 1.0, "i1": 0.0}, second, 0.05)
