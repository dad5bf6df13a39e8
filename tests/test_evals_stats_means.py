"""Means of graded and clustered scores against scipy and a regression's sandwich estimator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from evals.stats_means import mean_low, mean_p, standard_error


@given(st.lists(st.floats(-1, 1), min_size=30, max_size=60))
def test_single_items_give_students_t(scores: list[float]) -> None:
    values = np.array([*scores, 0.25, -0.4])
    found = stats.ttest_1samp(values, -0.1, alternative="greater")
    low = found.confidence_interval(0.95).low
    assert mean_low(values, np.ones(len(values)), 0.05, -1.0) <= low + 1e-9
    p_value = float(mean_p(values, np.ones(len(values)), -0.1, -1.0))
    assert p_value >= found.pvalue - 1e-9
    if found.pvalue > 0.01 and values.mean() > -0.1 and p_value < 0.5:
        unseen = ((-0.1 + 1) / (values.mean() + 1)) ** len(values)
        assert p_value == pytest.approx(max(found.pvalue, unseen), rel=1e-6)


def test_clusters_have_the_sandwich_error_of_a_regression_on_a_constant() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 7, size=40)
    items = [random.normal(random.normal(0, 0.3), 0.2, size=size) for size in sizes]
    pooled = np.concatenate(items)
    bread, meat = 1 / len(pooled), sum(float((one - pooled.mean()).sum()) ** 2 for one in items)
    expected = np.sqrt(40 / 39 * bread * meat * bread)
    found = standard_error(np.array([one.sum() for one in items]), sizes.astype(float))
    assert float(found) == pytest.approx(expected)


def test_twins_in_clusters_count_once() -> None:
    scores = np.array([0.0, 1.0, 1.0, 0.0, 1.0] * 8)
    single = standard_error(scores, np.ones(40))
    doubled = standard_error(2 * scores, 2 * np.ones(40))
    assert float(doubled) == pytest.approx(float(single))


def test_scores_that_never_vary_are_not_sure_of_everything() -> None:
    # a bad item in 10 or more that was not seen in 20 has a chance of 0.9^20
    assert float(mean_p(np.zeros(20), np.ones(20), -0.1, -1.0)) == pytest.approx(0.9**20)
    assert float(mean_low(np.zeros(20), np.ones(20), 0.05, -1.0)) == pytest.approx(-(1 - 0.05 ** (1 / 20)))


def test_one_unit_says_nothing() -> None:
    assert float(mean_p(np.array([5.0]), np.array([5.0]), 0.0, -1.0)) == 1.0
    assert float(mean_low(np.array([5.0]), np.array([5.0]), 0.05, -1.0)) == -1.0
