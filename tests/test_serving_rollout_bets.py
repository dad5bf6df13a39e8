"""Bets on which version answered: a fair game by enumeration of every draw of the gateway, at any look."""

import itertools
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rollout.bets import Array, Flags, bets_on_events, bets_on_limit, bets_on_times

REQUESTS = 10
DRAWS = np.array(list(itertools.product([False, True], repeat=REQUESTS)))
numbers = st.floats(-4, 4) | st.just(float("nan")) | st.just(float("inf"))
weights = st.sampled_from([0.1, 0.3, 0.5, 0.9])


def probabilities(draws: Flags, weight: float) -> Array:
    hits = draws.sum(axis=1)
    return np.asarray(weight**hits * (1 - weight) ** (draws.shape[1] - hits))


@given(st.lists(numbers, min_size=REQUESTS, max_size=REQUESTS), weights)
@settings(max_examples=40, deadline=None)
def test_wealth_is_expected_to_stay_1_whatever_was_measured(logs: list[float], weight: float) -> None:
    """The values are fixed and the gateway draws the versions: that is the hypothesis."""
    wealth = np.exp(bets_on_times(np.tile(logs, (len(DRAWS), 1)), DRAWS, weight))
    expected = probabilities(DRAWS, weight) @ wealth
    assert expected == pytest.approx(np.ones(REQUESTS), rel=1e-9)


@given(st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=REQUESTS, max_size=REQUESTS), weights)
@settings(max_examples=40, deadline=None)
def test_wealth_on_events_is_expected_to_stay_1(events: list[float], weight: float) -> None:
    wealth = np.exp(bets_on_events(np.tile(events, (len(DRAWS), 1)), DRAWS, weight))
    assert probabilities(DRAWS, weight) @ wealth == pytest.approx(np.ones(REQUESTS), rel=1e-9)


@given(st.lists(numbers, min_size=REQUESTS, max_size=REQUESTS), weights, st.sampled_from([0.5, 0.2, 0.05]))
@settings(max_examples=40, deadline=None)
def test_looking_after_every_request_refuses_a_true_hypothesis_at_most_with_alpha(
    logs: list[float], weight: float, alpha: float
) -> None:
    wealth = bets_on_times(np.tile(logs, (len(DRAWS), 1)), DRAWS, weight)
    refused = (wealth >= -log(alpha)).any(axis=1)
    assert probabilities(DRAWS, weight) @ refused <= alpha + 1e-12


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.3])
def test_a_limit_that_is_kept_is_refused_at_most_with_alpha(limit: float) -> None:
    """Each draw is of an event now, and every request is the candidate's."""
    events, all_canary = DRAWS.astype(float), np.ones_like(DRAWS)
    wealth = bets_on_limit(events, all_canary, limit)
    assert (probabilities(DRAWS, limit) @ np.exp(wealth) <= 1 + 1e-9).all()
    refused = (wealth >= -log(0.05)).any(axis=1)
    assert probabilities(DRAWS, limit) @ refused <= 0.05 + 1e-12


def test_where_nothing_may_fail_one_failure_is_proof() -> None:
    canary = np.array([True, False, True, True])
    assert np.isinf(bets_on_limit(np.array([0.0, 1.0, 0.0, 1.0]), canary, 0.0)[-1])
    assert bets_on_limit(np.array([0.0, 1.0, 0.0, 0.0]), canary, 0.0)[-1] < 0


@given(st.lists(st.tuples(st.floats(-4, 4), st.booleans()), min_size=1, max_size=40), st.floats(-2, 2), st.floats(0, 2))
def test_a_slower_candidate_never_has_less_evidence_against_it(
    rows: list[tuple[float, bool]], shift: float, more: float
) -> None:
    logs, canary = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    lower, higher = (bets_on_times(logs + canary * by, canary, 0.3) for by in (shift, shift + more))
    assert (higher >= lower - 1e-9).all()


def test_what_was_not_measured_is_not_bet_on() -> None:
    logs = np.array([0.1, 0.2, 0.0, 0.1, np.nan, 2.0])
    canary = np.array([False, False, False, False, True, True])
    wealth = bets_on_times(logs, canary, 0.5)
    assert wealth[4] == wealth[3]
    without = bets_on_times(np.delete(logs, 4), np.delete(canary, 4), 0.5)
    assert wealth[5] == pytest.approx(without[4])


def test_one_factor_by_hand() -> None:
    """Three stable requests at 0, one of the candidate at 0.3: deviation sqrt(4 x 0.09 / 7 x 4 / 3), score 1.146."""
    logs, canary = np.array([0.0, 0.0, 0.0, 0.3]), np.array([False, False, False, True])
    score = 0.3 / (4 * 0.09 / 7 * 4 / 3) ** 0.5
    gains = []
    for shift in (0.75, 1.5, 3.0):
        g = exp(shift * score - shift**2 / 2)
        gains.append(0.1 + 0.9 * g / (0.25 * g + 0.75))
    assert np.exp(bets_on_times(logs, canary, 0.25)) == pytest.approx([1, 1, 1, sum(gains) / 3])


def test_a_clear_difference_is_found_and_a_rare_one_takes_long() -> None:
    random = np.random.default_rng(1)
    canary = random.random(400) < 0.5
    slow = bets_on_times(random.normal(0, 0.25, 400) + canary * log(2), canary, 0.5)
    same = bets_on_times(random.normal(0, 0.25, 400), canary, 0.5)
    assert (slow >= log(400)).argmax() < 40
    assert same.max() < log(400)
    failing = bets_on_events((canary & (random.random(400) < 0.3)).astype(float), canary, 0.5)
    assert (failing >= log(400)).any()
