"""The intervals against published examples, against other libraries, and their coverage by exact enumeration."""

from __future__ import annotations

from itertools import product
from math import exp, lgamma, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats  # type: ignore[import-untyped]

from evals.stats import mcnemar_exact, mean_interval, paired_difference, tango_interval, wilson_interval


def test_tango_gives_the_published_interval() -> None:
    # Cavo et al. 2012, complete response before and after consolidation: 59, 6, 16, 80 of 161 patients.
    # Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables (2017), chapter 8.
    low, high = tango_interval(6, 16, 161, 0.05)
    assert (low, high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_exact_mcnemar_gives_the_published_p_value() -> None:
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=5e-7)  # the same table


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    assert wilson_interval(successes, n, 0.05) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 400), st.integers(0, 400))
def test_exact_mcnemar_is_the_binomial_test(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse, 0.5).pvalue if better + worse else 1.0
    assert mcnemar_exact(better, worse) == pytest.approx(expected, rel=1e-9)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 300))
    better = draw(st.integers(0, n))
    return better, draw(st.integers(0, n - better)), n


@given(tables(), st.sampled_from([0.01, 0.05, 0.2]))
def test_tango_holds_the_estimate_and_mirrors(table: tuple[int, int, int], alpha: float) -> None:
    better, worse, n = table
    low, high = tango_interval(better, worse, n, alpha)
    assert -1 <= low <= (better - worse) / n <= high <= 1
    assert low < high
    mirrored = tango_interval(worse, better, n, alpha)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-12)
    wider = tango_interval(better, worse, n, alpha / 2)
    assert wider[0] <= low
    assert high <= wider[1]


@pytest.mark.parametrize("n", [1, 7, 320])
def test_tango_without_discordant_pairs_has_its_closed_form(n: int) -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    low, high = tango_interval(0, 0, n, 0.05)
    assert (low, high) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))


@pytest.mark.parametrize(("better", "worse", "n"), [(40, 20, 160), (3, 1, 25), (12, 90, 320)])
def test_tango_bounds_invert_the_score_test(better: int, worse: int, n: int) -> None:
    """At each bound the statistic is z, its nuisance parameter found by numerical maximum likelihood."""

    def statistic(delta: float) -> float:
        def loss(p_worse: float) -> float:
            terms = ((better, p_worse + delta), (worse, p_worse), (n - better - worse, 1 - 2 * p_worse - delta))
            return -sum(count * log(max(p, 1e-300)) for count, p in terms)

        bounds = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
        p_worse = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
        return float((better - worse - n * delta) / sqrt(n * (2 * p_worse + delta * (1 - delta))))

    low, high = tango_interval(better, worse, n, 0.05)
    assert statistic(low) == pytest.approx(1.95996, abs=1e-3)
    assert statistic(high) == pytest.approx(-1.95996, abs=1e-3)


def test_tango_coverage_and_false_promotions_by_enumeration() -> None:
    """Every table of 50 pairs, weighted by its probability: no simulation error."""
    n, alpha = 50, 0.05
    intervals = {
        (better, worse): tango_interval(better, worse, n, alpha)
        for better, worse in product(range(n + 1), repeat=2)
        if better + worse <= n
    }
    coverages: list[float] = []
    for p_better, p_worse in product((0.02, 0.05, 0.1, 0.2, 0.35), repeat=2):
        agree = 1 - p_better - p_worse
        covered = promoted = 0.0
        for (better, worse), (low, high) in intervals.items():
            rest = n - better - worse
            ways = lgamma(n + 1) - lgamma(better + 1) - lgamma(worse + 1) - lgamma(rest + 1)
            weight = exp(ways + better * log(p_better) + worse * log(p_worse) + rest * log(agree))
            covered += weight * (low <= p_better - p_worse <= high)
            promoted += weight * (low > 0)
        coverages.append(covered)
        assert covered >= 0.94, (p_better, p_worse, covered)
        if p_better <= p_worse:  # promoted though no better
            assert promoted <= alpha, (p_better, p_worse, promoted)
    assert sum(coverages) / len(coverages) == pytest.approx(1 - alpha, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=40))
def test_graded_scores_use_students_t(pairs: list[tuple[float, float]]) -> None:
    pairs = [*pairs, (0.25, 0.5)]  # keeps the scores graded and the differences from being all equal
    new, old = zip(*pairs, strict=True)
    found = paired_difference(new, old, 0.05)
    expected = stats.ttest_rel(new, old).confidence_interval(0.95)
    assert found.method == "Student's t"
    assert found.p_value is None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_binary_scores_use_tango() -> None:
    found = paired_difference([1, 1, 1, 0, 1], [0, 0, 1, 1, 1], 0.05)
    assert (found.better, found.worse, found.n, found.method) == (2, 1, 5, "Tango score")
    assert found.estimate == pytest.approx(0.2)
    assert (found.low, found.high) == tango_interval(2, 1, 5, 0.05)
    assert found.p_value == 1.0


def test_one_models_mean() -> None:
    assert mean_interval([1, 0, 1, 1], 0.05) == wilson_interval(3, 4, 0.05)
    expected = stats.ttest_1samp([0.2, 0.5, 0.9], 0).confidence_interval(0.9)
    assert mean_interval([0.2, 0.5, 0.9], 0.1) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("table", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_tables_are_refused(table: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        tango_interval(*table, 0.05)


def test_impossible_proportions_and_single_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="3 successes of 2 trials"):
        wilson_interval(3, 2, 0.05)
    with pytest.raises(ValueError, match="two pairs are needed"):
        paired_difference([1.0], [0.0], 0.05)
    with pytest.raises(ValueError, match="2 candidate and 3 baseline"):
        paired_difference([1.0, 1.0], [0.0, 0.0, 0.0], 0.05)
