"""The rules of a canary step, and that no data never passes them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serving.rollout.analysis import AnalysisPolicy, judge_step
from serving.rollout.model import SideStats, Step

POLICY = AnalysisPolicy(min_requests=10, max_error_rate=0.1, max_first_token_ratio=2.0)
seconds = st.floats(0.001, 300)


@st.composite
def sides(draw: st.DrawFn, name: str = "v") -> SideStats:
    """As traffic yields it: a request that failed may have no first-token time."""
    requests = draw(st.integers(0, 60))
    errors = draw(st.integers(0, requests))
    measured = draw(st.integers(requests - errors, requests))
    times = draw(st.lists(seconds, min_size=measured, max_size=measured))
    return SideStats(name, requests, errors, tuple(times))


policies = st.builds(
    AnalysisPolicy,
    min_requests=st.integers(0, 40),
    max_error_rate=st.floats(0, 1),
    max_first_token_ratio=st.floats(1, 10),
    first_token_floor=st.floats(0.001, 1),
)


def side(requests: int, errors: int = 0, first_token: float | None = 0.1) -> SideStats:
    return SideStats("v", requests, errors, () if first_token is None else (first_token,) * requests)


@given(sides(), policies)
def test_a_candidate_that_nobody_asked_never_passes(stable: SideStats, policy: AnalysisPolicy) -> None:
    decision, _ = judge_step(stable, side(0), policy)
    assert decision == "hold"


@given(sides(), st.integers(0, 1000), policies)
def test_a_candidate_without_one_token_never_passes(stable: SideStats, requests: int, policy: AnalysisPolicy) -> None:
    decision, _ = judge_step(stable, side(requests, first_token=None), policy)
    assert decision == "hold"


@given(sides(), sides(), policies)
def test_too_few_requests_are_never_judged(stable: SideStats, candidate: SideStats, policy: AnalysisPolicy) -> None:
    assume(candidate.requests < policy.min_requests)
    decision, reason = judge_step(stable, candidate, policy)
    assert decision == "hold"
    assert reason == f"the candidate answered {candidate.requests} requests, required {policy.min_requests}"


@given(sides(), sides(), policies)
def test_what_goes_on_has_kept_every_limit(stable: SideStats, candidate: SideStats, policy: AnalysisPolicy) -> None:
    decision, _ = judge_step(stable, candidate, policy)
    if decision != "go_on":
        return
    assert candidate.requests >= max(policy.min_requests, 1)
    assert Fraction(candidate.errors, candidate.requests) <= Fraction(policy.max_error_rate) + Fraction(1, 10**12)
    assert candidate.first_token_seconds
    if stable.first_token_seconds:
        reference = max(float(np.median(stable.first_token_seconds)), policy.first_token_floor)
        limit = policy.max_first_token_ratio * reference
        assert float(np.median(candidate.first_token_seconds)) <= limit * (1 + 1e-12)


@given(sides(), sides(), policies)
def test_what_is_undone_has_broken_a_limit(stable: SideStats, candidate: SideStats, policy: AnalysisPolicy) -> None:
    decision, _ = judge_step(stable, candidate, policy)
    if decision != "undo":
        return
    errors = Fraction(candidate.errors, candidate.requests) >= Fraction(policy.max_error_rate) - Fraction(1, 10**12)
    reference = max(float(np.median(stable.first_token_seconds or [math.inf])), policy.first_token_floor)
    slow = float(np.median(candidate.first_token_seconds or [0])) >= policy.max_first_token_ratio * reference * (
        1 - 1e-12
    )
    assert errors or slow


@given(sides(), sides(), policies)
def test_more_errors_never_help(stable: SideStats, candidate: SideStats, policy: AnalysisPolicy) -> None:
    assume(candidate.errors < candidate.requests)
    worse = SideStats("v", candidate.requests, candidate.errors + 1, candidate.first_token_seconds)
    if judge_step(stable, candidate, policy)[0] != "go_on":
        assert judge_step(stable, worse, policy)[0] != "go_on"


@pytest.mark.parametrize(
    ("errors", "decision"),
    [(0, "go_on"), (2, "go_on"), (3, "undo"), (20, "undo")],  # 10 % of 20 requests are 2
)
def test_the_error_rate_may_reach_its_limit_and_not_pass_it(errors: int, decision: str) -> None:
    assert judge_step(side(20), side(20, errors), POLICY)[0] == decision


def test_errors_are_named_in_the_reason() -> None:
    reason = judge_step(side(20), side(20, 3), POLICY)[1]
    assert reason == "3 of 20 candidate requests failed (15.0%), allowed 10.0%"


@pytest.mark.parametrize(
    ("stable", "candidate", "decision"),
    [
        (0.1, 0.2, "go_on"),  # twice, as allowed
        (0.1, 0.21, "undo"),
        (0.001, 0.1, "go_on"),  # stable counts as 50 ms
        (0.001, 0.11, "undo"),
        (2.0, 0.1, "go_on"),  # faster
    ],
)
def test_the_first_token_is_compared_with_stable(stable: float, candidate: float, decision: str) -> None:
    assert judge_step(side(20, first_token=stable), side(20, first_token=candidate), POLICY)[0] == decision


def test_a_slow_candidate_is_named_in_the_reason() -> None:
    reason = judge_step(side(20, first_token=0.1), side(20, first_token=0.25), POLICY)[1]
    assert reason == "median first token 250 ms against 100 ms of stable: 2.50 times, allowed 2.00"


def test_a_few_slow_answers_do_not_undo() -> None:
    candidate = SideStats("v", 11, 0, (0.1,) * 6 + (30.0,) * 5)
    assert judge_step(side(11), candidate, POLICY)[0] == "go_on"


def test_at_full_weight_stable_is_silent_and_errors_alone_count() -> None:
    silent = SideStats("stable", 0, 0, ())
    assert judge_step(silent, side(10, first_token=9.0), POLICY) == (
        "go_on",
        "10 requests without failures above 10.0%; median first token 9000 ms",
    )
    assert judge_step(silent, side(10, 2), POLICY)[0] == "undo"


def test_shares() -> None:
    step = Step(10, side(90), side(10, 1), "go_on", "", 1.0)
    assert step.observed_share == pytest.approx(0.1)
    assert step.candidate.error_rate == pytest.approx(0.1)
    nothing = Step(10, side(0), side(0), "hold", "", 1.0)
    assert (nothing.observed_share, nothing.candidate.error_rate) == (0.0, 0.0)
