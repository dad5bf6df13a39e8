"""The exact tests and bounds against published examples, other libraries, and by enumeration of every table."""

from __future__ import annotations

from itertools import product
from math import lgamma, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats  # type: ignore[import-untyped]

from evals.stats import (
    critical_value,
    paired_low,
    paired_p,
    proportion_low,
    proportion_p,
    tango_low,
    tango_statistic,
    wilson_interval,
)

Z95 = 1.959963984540054


def test_tango_gives_the_published_interval() -> None:
    # Cavo et al. 2012, complete response before and after consolidation: 59, 6, 16, 80 of 161 patients.
    # Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables (2017), chapter 8.
    assert tango_low(6, 16, 161, Z95) == pytest.approx(-0.1240, abs=5e-5)
    assert -tango_low(16, 6, 161, Z95) == pytest.approx(-0.0054, abs=5e-5)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    assert wilson_interval(successes, n, 0.05) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.3]))
def test_one_proportion_is_the_binomial_test(n: int, share: float, alpha: float) -> None:
    successes = round(share * n)
    expected = stats.binomtest(successes, n, 0.7, alternative="greater")
    assert proportion_p(successes, n, 0.7) == pytest.approx(expected.pvalue, rel=1e-9)
    assert proportion_low(successes, n, alpha) == pytest.approx(expected.proportion_ci(1 - alpha).low, abs=1e-9)


@pytest.mark.parametrize("n", [1, 7, 320])
def test_tango_without_discordant_pairs_has_its_closed_form(n: int) -> None:
    assert tango_low(0, 0, n, Z95) == pytest.approx(-(Z95**2) / (n + Z95**2))


@pytest.mark.parametrize(("better", "worse", "n"), [(40, 20, 160), (3, 1, 25), (12, 90, 320)])
def test_tango_bounds_invert_the_score_test(better: int, worse: int, n: int) -> None:
    """At the bound the statistic is z, its nuisance parameter found by numerical maximum likelihood."""

    def statistic(delta: float) -> float:
        def loss(p_worse: float) -> float:
            terms = ((better, p_worse + delta), (worse, p_worse), (n - better - worse, 1 - 2 * p_worse - delta))
            return -sum(count * log(max(p, 1e-300)) for count, p in terms)

        bounds = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
        p_worse = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
        return float((better - worse - n * delta) / sqrt(n * (2 * p_worse + delta * (1 - delta))))

    assert statistic(tango_low(better, worse, n, Z95)) == pytest.approx(Z95, abs=1e-3)


@pytest.mark.parametrize("delta", [-0.1, 0.0, 0.15])
def test_the_paired_test_promotes_falsely_at_most_with_alpha_by_enumeration(delta: float) -> None:
    """Every table of 60 pairs, weighted by its probability, for many unknown rates: no simulation error."""
    n, alpha = 60, 0.05
    tables = np.array([(up, down) for up, down in product(range(n + 1), repeat=2) if up + down <= n])
    up, down = tables.T
    reached = tango_statistic(up, down, n, delta) >= critical_value(n, delta, alpha)
    ways = np.array([lgamma(n + 1) - lgamma(a + 1) - lgamma(b + 1) - lgamma(n - a - b + 1) for a, b in tables])
    worst = 0.0
    for p_worse in np.linspace(max(0.0, -delta) + 1e-6, (1 - delta) / 2 - 1e-6, 60):
        rates = np.log([p_worse + delta, p_worse, 1 - 2 * p_worse - delta])
        chance = float(np.exp(ways + up * rates[0] + down * rates[1] + (n - up - down) * rates[2])[reached].sum())
        worst = max(worst, chance)
    assert worst <= alpha + 1e-6
    assert worst > 0.6 * alpha  # not empty caution


@pytest.mark.parametrize(("better", "worse"), [(12, 3), (5, 5), (20, 9)])
def test_the_exact_p_value_is_the_largest_over_the_unknown_rate(better: int, worse: int) -> None:
    n, delta = 40, -0.05
    observed = float(tango_statistic(better, worse, n, delta)) - 1e-9
    tables = np.array([(a, b, n - a - b) for a, b in product(range(n + 1), repeat=2) if a + b <= n])
    extreme = tables[tango_statistic(tables[:, 0], tables[:, 1], n, delta) >= observed]
    rates = 0.05 + 0.475 * np.sin(np.linspace(1e-3, np.pi / 2 - 1e-3, 200)) ** 2  # dense at both ends
    found = max(stats.multinomial.pmf(extreme, n, (p + delta, p, 1 - 2 * p - delta)).sum() for p in rates)
    assert paired_p(better, worse, n, delta) == pytest.approx(found, rel=0.01)
    assert paired_p(better, worse, n, delta) >= found * 0.999


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 80), st.data())
def test_bound_and_p_value_agree(n: int, data: st.DataObject) -> None:
    better = data.draw(st.integers(0, n))
    worse = data.draw(st.integers(0, n - better))
    assert (paired_low(better, worse, n, -0.1, 0.05) > -0.1) == (paired_p(better, worse, n, -0.1) <= 0.05)


@pytest.mark.parametrize("table", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_tables_are_refused(table: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        paired_p(*table, 0.0)


def test_impossible_proportions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 successes of 2 trials"):
        wilson_interval(3, 2, 0.05)
