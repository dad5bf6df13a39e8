"""The bets: exact false-alarm probabilities by enumeration, predictability, and p-values that agree with bounds."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.sequential import (
    MOST_AT_STAKE,
    always_valid_low,
    always_valid_p,
    bets,
    last_look_alpha,
    limit,
    log_wealth,
    shared_p,
)

ENDS = (2, 4, 6, 8)
ONES = np.ones(8)


@pytest.mark.parametrize(("worse", "better"), [(0.3, 0.1), (0.6, 0.4), (0.2, 0.0)])
def test_wealth_is_a_fair_game_by_enumeration_of_every_path(worse: float, better: float) -> None:
    """All 3^8 paths of a mean of -0.2: expected wealth is 1 at each look, and Ville's bound holds."""
    paths = np.array(list(product((-1.0, 0.0, 1.0), repeat=8)))
    chance = np.prod(np.select([paths < 0, paths > 0], [worse, better], 1 - worse - better), axis=1)
    stakes = [bets(paths, ONES, ENDS, 0.0, effect) for effect in (0.3, 1.5)]
    wealth = log_wealth(paths, ONES, ENDS, stakes, -0.2, -1.0, 1.0)
    assert chance @ np.exp(wealth) == pytest.approx(np.ones(4))
    for alpha in (0.05, 0.2, 0.5):
        assert chance @ (always_valid_p(wealth)[:, -1] <= alpha) <= alpha


def test_a_stake_does_not_depend_on_its_own_block_or_later_ones() -> None:
    random = np.random.default_rng(1)
    one, sizes = random.integers(-1, 2, 8).astype(float), np.array([1.0, 3, 2, 1, 1, 4, 1, 2])
    other = np.r_[one[:4], -one[4:] + 1]
    assert bets(one, sizes, ENDS, 0.0, 0.1)[:3] == pytest.approx(bets(other, sizes, ENDS, 0.0, 0.1)[:3])
    shorter = bets(one[:4], sizes[:4], ENDS[:2], 0.0, 0.1)  # asked after two blocks, and again after four
    assert shorter == pytest.approx(bets(one, sizes, ENDS, 0.0, 0.1)[:2])


def test_no_outcome_takes_all() -> None:
    sizes = np.array([1.0, 5.0])
    wealth = log_wealth(-sizes, sizes, (1, 2), [np.array([1e9, 1e9])], 0.4, -1.0, 5.0)
    assert wealth[1] >= log(1 - MOST_AT_STAKE / 5) + log(1 - MOST_AT_STAKE) - 1e-9
    assert float(limit(0.4, -1.0, 5.0)) == pytest.approx(MOST_AT_STAKE / 7)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.5]), min_size=8, max_size=8), st.sampled_from([0.05, 0.3]))
def test_the_sequence_is_every_mean_that_was_not_refused(scores: list[float], alpha: float) -> None:
    values = np.array(scores)
    stakes = [bets(values, ONES, ENDS, 0.0, 0.5)]
    low = always_valid_low(values, ONES, ENDS, stakes, alpha, -1.0, 1.0, range(4))
    assert list(low) == sorted(low)  # never takes back what it has shown
    for mean in (-0.95, -0.5, 0.0, 0.5):
        refused = always_valid_p(log_wealth(values, ONES, ENDS, stakes, mean, -1.0, 1.0)) <= alpha
        assert list(low > mean + 1e-6) == list(refused) or np.any(np.abs(low - mean) < 1e-6)


@pytest.mark.parametrize("drift", [0.3, 2.0, 3.6, 6.0])
def test_the_last_look_keeps_the_total_on_simulated_brownian_paths(drift: float) -> None:
    """Paths of 100 looks without drift: crossing the line, or ending above the last look's critical value."""
    random, alpha, share = np.random.default_rng(7), 0.05, 0.38
    level = float(last_look_alpha(alpha, share, np.array([drift]), 100))
    assert (1 - share) * alpha - 1e-9 <= level <= alpha
    steps = random.standard_normal((40_000, 100)) / 10
    paths, times = np.cumsum(steps, axis=1), np.arange(1, 101) / 100
    crossed = np.any(drift * paths - drift**2 * times / 2 >= -log(share * alpha), axis=1)
    from scipy.stats import norm  # type: ignore[import-untyped]

    total = float(np.mean(crossed | (paths[:, -1] >= norm.isf(level))))
    assert total <= alpha + 3 * (0.05 * 0.95 / 40_000) ** 0.5


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-4, 0.49), st.floats(0.1, 6.0))
def test_the_shared_p_value_is_the_level_at_which_it_refuses(last: float, drift: float) -> None:
    p_value = shared_p(1.0, last, 0.38, np.array([drift]), 50)
    if 0.001 < p_value < 0.5:
        assert last <= float(last_look_alpha(p_value * 1.001, 0.38, np.array([drift]), 50)) + 1e-9
        assert last >= float(last_look_alpha(p_value * 0.999, 0.38, np.array([drift]), 50)) - 1e-6
    assert last <= p_value <= last / 0.62 + 1e-9
