"""Golden prompts: a candidate that is not the version that was evaluated gets no weight, and one that turns wrong is undone."""

from pathlib import Path

import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy, judge
from serving.rollout.golden import Compared, GoldenUnanswered, compare, record
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout, Sample
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy

OLD, NEW = "tickets-1", "tickets-2"
PROMPTS = tuple(({"role": "user", "content": f"ticket {number}"},) for number in range(8))
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.0, max_first_token_ratio=8, steps=2, golden=True)


def test_the_same_version_answers_as_on_record_and_another_does_not(engine: FakeEngine) -> None:
    """The engine answers with the name that it was asked as."""
    engine.models |= {OLD: Behaviour(), NEW: Behaviour()}
    golden = record(engine.url, NEW, PROMPTS)
    assert golden[0].answer == NEW + NEW
    assert compare(engine.url, NEW, golden) == Compared(8, 8)
    wrong = compare(engine.url, OLD, golden)
    assert (wrong.same, wrong.total, wrong.good) == (0, 8, False)
    assert "on record 'tickets-2tickets-2', answered 'tickets-1tickets-1'" in wrong.said


@pytest.mark.parametrize(("same", "good"), [(16, True), (12, True), (11, False), (0, False)])
def test_a_quarter_may_differ(same: int, good: bool) -> None:
    assert Compared(same, 16).good == good


def test_an_engine_that_fails_is_no_record(engine: FakeEngine) -> None:
    engine.models[NEW] = Behaviour(error_share=0.5)
    with pytest.raises(GoldenUnanswered, match=r"tickets-2 at .* does not answer its golden prompts: HTTP 500"):
        record(engine.url, NEW, PROMPTS)


def released(envoy: Envoy, engine: FakeEngine, model: str, folder: Path, recorded_as: str) -> Rollout:
    engine.models |= {OLD: Behaviour(), NEW: Behaviour()}
    envoy.gateway.set_stable(model, OLD)
    golden = record(engine.url, recorded_as, PROMPTS)
    plan = Plan(model, NEW, "r", engine.url, PROMPTS, (50, 100), 2, POLICY, 60, 5, golden=golden)
    traffic = Traffic(envoy.url, model, PROMPTS, VERSION_HEADER, golden=golden)
    return roll_out(Rollouts(folder), plan, LocalTarget(envoy.gateway), traffic, lambda _: None)


def test_the_version_that_was_evaluated_is_rolled_out(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    found = released(envoy, engine, model, tmp_path, NEW)
    assert (found.outcome, found.golden) == ("completed", (8, 8))
    told = [one for step in found.steps for one in step.findings if one.metric == "different_limit"]
    assert [one.decision for one in told] == ["go_on", "go_on"]
    assert all(one.candidate == 0.0 for one in told)


def test_another_version_under_its_name_gets_no_weight(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    found = released(envoy, engine, model, tmp_path, BASE)
    assert found.outcome == "undone"
    assert "tickets-2 is not the version that was evaluated: 0 of 8 golden prompts" in found.reason
    assert found.steps == ()
    assert envoy.gateway.splits()[model] == Split(model, OLD)


def test_wrong_answers_undo_and_a_few_do_not() -> None:
    """Half of the prompts have a record; the bad candidate answers each of those otherwise."""

    def sample(place: int, every: int) -> Sample:
        name = NEW if place % 2 else OLD
        known = place // 2 % every == 0 if place % 4 == 1 else None
        return Sample(name, True, 0.1, "", name, 0.2, 4, "stop", different=known)

    def samples(every: int) -> list[Sample]:
        return [sample(place, every) for place in range(200)]

    bad = judge(samples(2), OLD, NEW, 50, POLICY)
    assert bad.decision == "undo"
    assert "were answered otherwise than on the release's record" in bad.reason
    assert judge(samples(20), OLD, NEW, 50, POLICY).decision != "undo"
