"""What a canary step decides: no data never passes, what is worse is named, and harmless candidates go on."""

import random
from collections.abc import Callable
from dataclasses import replace
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rollout.analysis import AnalysisPolicy, Judgement, Seen, judge, ratio_interval
from serving.rollout.metrics import NAMED
from serving.rollout.model import Sample, SideStats, Step

POLICY = AnalysisPolicy(min_requests=10, max_error_rate=0.0, max_first_token_ratio=1.2)
GOOD = Sample("s", True, 0.1, "", "s", 0.4, 8, "stop")


def drawn(
    count: int, weight: int, change: Callable[[Sample], Sample] = lambda one: one, seed: int = 1, spread: float = 0.2
) -> list[Sample]:
    """As the gateway draws them: the candidate's are changed."""
    dice, found = random.Random(seed), []
    for _ in range(count):
        slower = exp(dice.gauss(0, spread))
        one = replace(GOOD, first_token_seconds=0.1 * slower, seconds=0.4 * slower)
        candidate = dice.random() < weight / 100
        found.append(replace(change(one), version="c", served="c") if candidate else one)
    return found


def judged(samples: list[Sample], weight: int = 50, policy: AnalysisPolicy = POLICY) -> Judgement:
    return judge(samples, "s", "c", weight, policy)


def first_undo(samples: list[Sample], weight: int = 50, policy: AnalysisPolicy = POLICY) -> tuple[int, str]:
    """Looked at after every request, as the pipeline does."""
    for count in range(1, len(samples) + 1):
        found = judged(samples[:count], weight, policy)
        if found.decision == "undo":
            return count, next(one.metric for one in found.findings if one.decision == "undo")
    return len(samples) + 1, ""


samples = st.builds(
    Sample,
    version=st.sampled_from(["s", "c"]),
    ok=st.booleans(),
    first_token_seconds=st.none() | st.floats(0.0001, 300),
    error=st.just(""),
    served=st.just(""),
    seconds=st.floats(0, 600),
    tokens=st.integers(0, 5000),
    finish=st.sampled_from(["stop", "length", "content_filter", ""]),
    empty=st.booleans(),
    refused=st.booleans(),
)


@given(st.lists(samples, max_size=60), st.integers(1, 100), st.integers(0, 20))
@settings(deadline=None)
def test_any_requests_give_a_decision_and_too_few_never_go_on(asked: list[Sample], weight: int, needed: int) -> None:
    found = judge(asked, "s", "c", weight, replace(POLICY, min_requests=needed))
    mine = [one for one in asked if one.version == "c"]
    if len(mine) < max(needed, 1) or all(one.first_token_seconds is None for one in mine):
        assert found.decision != "go_on"
    if any(not one.ok for one in mine):
        assert found.decision == "undo"


@pytest.mark.parametrize("weight", [50, 100])
def test_a_candidate_that_nobody_asked_is_held(weight: int) -> None:
    found = judged([GOOD] * 5, weight)
    assert (found.decision, found.reason) == ("hold", "the candidate answered 0 requests, required 10")


def test_a_good_candidate_goes_on_and_every_metric_is_in_the_evidence() -> None:
    found = judged(drawn(80, 50))
    assert found.decision == "go_on", found.reason
    compared = [one.metric for one in found.findings]
    times = ["first_token", "inter_token", "per_token", "longer", "shorter"]
    assert compared == ["errors_limit", "errors", *times, "cut", "empty", "refused", "flagged"]
    first = found.findings[2]
    assert first.low is not None and first.high is not None and first.low < 1 < first.high
    assert first.odds < first.needed
    count = sum(one.version == "c" for one in drawn(80, 50))
    assert found.reason.startswith(f"{count} requests, 0 failed; median first token 1")


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        (lambda one: replace(one, first_token_seconds=one.first_token_seconds * 2), "first_token"),
        (lambda one: replace(one, seconds=one.seconds * 2), "inter_token"),
        (lambda one: replace(one, ok=False, error="HTTP 500"), "errors_limit"),
        (lambda one: replace(one, finish="length"), "cut"),
        (lambda one: replace(one, empty=True), "empty"),
        (lambda one: replace(one, refused=True), "refused"),
        (lambda one: replace(one, finish="content_filter"), "flagged"),
        (lambda one: replace(one, tokens=8 * 9, seconds=one.seconds * 9), "longer"),
        (lambda one: replace(one, tokens=1, seconds=one.seconds * 8, first_token_seconds=0.1), "per_token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_got_worse_is_found_and_named(change: Callable[[Sample], Sample], metric: str) -> None:
    count, found = first_undo(drawn(120, 50, change))
    assert found == metric
    assert count <= 60


def test_much_shorter_answers_are_found() -> None:
    long, short = (
        replace(GOOD, tokens=400, seconds=8.0),
        replace(GOOD, version="c", served="c", tokens=10, seconds=0.28),
    )
    rows = [short if one.version == "c" else long for one in drawn(80, 50)]
    assert first_undo(rows)[1] == "shorter"


def test_the_reason_names_both_values() -> None:
    found = judged(
        drawn(120, 50, lambda one: replace(one, first_token_seconds=one.first_token_seconds * 3), spread=0.0)
    )
    assert found.decision == "undo"
    assert found.reason.startswith("median first token 300 ms against 100 ms of stable: ")
    assert found.reason.endswith(" times, allowed 1.20")


def test_a_failed_request_is_named() -> None:
    rows = drawn(20, 50)
    place = next(place for place, one in enumerate(rows) if one.version == "c")
    rows[place] = replace(rows[place], ok=False, error="HTTP 500")
    count = sum(one.version == "c" for one in rows)
    assert judged(rows).reason == f"1 of {count} candidate requests failed ({1 / count:.1%}), allowed 0.0%"


def test_some_failures_are_allowed_where_the_policy_says_so() -> None:
    """One of twenty where a tenth is allowed is fine; half of them is not; three of twenty is no proof, and not fine either."""
    allowed = replace(POLICY, max_error_rate=0.1, min_requests=5)
    mine = [replace(GOOD, version="c", served="c")] * 20

    def failing(hits: int) -> Judgement:
        return judged([replace(one, ok=False) if place < hits else one for place, one in enumerate(mine)], 100, allowed)

    assert failing(1).decision == "go_on"
    assert failing(3).decision == "hold"
    assert failing(10).decision == "undo"
    assert failing(3).reason == "3 of 20 candidate requests failed (15.0%), allowed 10.0%"


def test_a_candidate_that_is_not_shown_to_be_fast_enough_is_held() -> None:
    """1.6 times is between what is tolerated (1.2) and what must be found (1.8)."""
    found = judged(drawn(30, 50, lambda one: replace(one, first_token_seconds=one.first_token_seconds * 1.6)))
    assert found.decision == "hold"
    assert found.reason.startswith("not yet shown to be fast enough: median first token")


def test_more_empty_answers_that_may_be_chance_are_held_until_that_is_settled() -> None:
    rows = drawn(60, 50)
    canary = [place for place, one in enumerate(rows) if one.version == "c"]
    for place in canary[:4]:
        rows[place] = replace(rows[place], empty=True)
    found = judged(rows)
    assert found.decision == "hold"
    assert found.reason.startswith(f"not settled: empty answers: 4 of {len(canary)} of the candidate against 0 of ")


def test_a_gateway_that_ignores_the_weight_does_not_pass() -> None:
    found = judged(drawn(200, 50), weight=10)
    assert found.decision == "hold"
    assert found.reason.startswith("the split is not shown: asked 10%, ")
    assert not found.split.shown


def test_an_engine_that_answers_as_another_than_the_gateway_says_ends_it() -> None:
    rows = drawn(30, 50)
    rows[-1] = replace(rows[-1], version="c", served="s")
    found = judged(rows)
    assert (found.decision, found.reason) == ("undo", "the gateway says c, the engine answered as s")


def test_at_full_weight_only_the_limits_are_judged() -> None:
    slow = [replace(GOOD, version="c", served="c", first_token_seconds=9.0)] * 12
    assert judged(slow, 100).decision == "go_on"
    promised = replace(POLICY, slo=(("first_token", 0.25),))
    found = judged(slow, 100, promised)
    assert found.decision == "undo"
    assert (
        found.reason == "12 of 12 candidate requests took longer than 0.25 s for the first token (100.0%), allowed 5.0%"
    )


def test_a_version_that_stopped_measuring_a_time_is_not_compared_by_it() -> None:
    """The candidate's answers have one token: no time between tokens, and the bet on who answered would not be fair."""
    rows = drawn(120, 50, lambda one: replace(one, tokens=1, seconds=0.1))
    finding = next(one for one in judged(rows).findings if one.metric == "inter_token")
    assert finding.note == "not compared: one version has it far more often"
    assert finding.decision == "go_on"


def test_the_interval_holds_the_true_ratio() -> None:
    rows = drawn(400, 50, lambda one: replace(one, first_token_seconds=one.first_token_seconds * 1.5))
    seen = Seen(rows, np.array([one.version == "c" for one in rows]), 0.5, POLICY)
    interval = ratio_interval(seen, NAMED["first_token"])
    assert interval is not None
    assert interval[0] < 1.5 < interval[1]
    assert interval[1] / interval[0] < 1.3


def test_an_interval_is_in_order_where_no_one_ratio_explains_the_times() -> None:
    """The candidate is ten times slower, and then ten times faster."""
    rows = drawn(400, 50)
    slow = [(one.version == "c") == (number < 200) for number, one in enumerate(rows)]
    rows = [
        replace(one, first_token_seconds=one.first_token_seconds * 10) if late else one
        for one, late in zip(rows, slow, strict=True)
    ]
    interval = ratio_interval(
        Seen(rows, np.array([one.version == "c" for one in rows]), 0.5, POLICY), NAMED["first_token"]
    )
    assert interval is not None
    assert interval[0] < interval[1]


def test_the_tests_share_alpha() -> None:
    """Ten metrics in two steps with a stable side, and one limit in each of three: 23 tests."""
    assert POLICY.each == pytest.approx(0.05 / 23)


def test_shares() -> None:
    step = Step(10, SideStats("s", 90, 0, ()), SideStats("c", 10, 1, ()), "go_on", "", 1.0)
    assert step.observed_share == pytest.approx(0.1)
    assert step.candidate.error_rate == pytest.approx(0.1)
    nothing = Step(10, SideStats("s", 0, 0, ()), SideStats("c", 0, 0, ()), "hold", "", 1.0)
    assert (nothing.observed_share, nothing.candidate.error_rate) == (0.0, 0.0)
