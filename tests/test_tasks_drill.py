"""The drill through the real Envoy: every deliberate fault is undone, and the same engine without a fault is not."""

from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.ask import ask
from serving.rollout.faulty import FAULTS, Fault, FaultyEngine
from serving.rollout.kept import Rollouts
from tasks.drill import Drilled, drill, prompts, undo_seconds
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy

CHAMPION = "tickets-7"


@pytest.mark.parametrize(("fault", "said"), [
    ("none", "2 steps passed"),
    ("slow", "median first token"),
    ("errors", "candidate requests failed"),
    ("cut", "candidate requests failed"),
    ("empty", "empty answers"),
    ("refused", "refused answers"),
    ("wrong", "were answered otherwise than on the release's record"),
    ("hang", "answered by neither version: ReadTimeout"),
])  # fmt: skip
def test_each_fault_is_undone_and_no_client_of_the_model_notices(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path, fault: Fault, said: str
) -> None:
    engine.models[CHAMPION] = Behaviour()
    envoy.gateway.set_stable(model, CHAMPION)
    told: list[Drilled] = []
    (found,) = drill(envoy.gateway, envoy.url, Rollouts(tmp_path / f"{model}-drill"), model, [fault], told.append)
    assert told == [found]
    assert found.passed, found
    assert (found.outcome == "completed") == (fault == "none")
    assert said in found.reason
    assert found.undo_seconds is None if fault == "none" else 0 <= (found.undo_seconds or 9) < 5
    assert envoy.gateway.splits()[model] == Split(model, CHAMPION)
    assert f"{model}-drill" not in envoy.gateway.splits()
    assert f"{model}-drill" not in httpx.get(f"{envoy.url}/v1/models").text


def test_every_fault_is_drilled() -> None:
    marks = test_each_fault_is_undone_and_no_client_of_the_model_notices.pytestmark[0]
    assert {fault for fault, _ in marks.args[1]} == set(FAULTS)


def test_a_faulty_engine_signs_as_the_candidate_and_hits_its_share(engine: FakeEngine) -> None:
    engine.models[CHAMPION] = Behaviour()
    with FaultyEngine(engine.url, "bad", CHAMPION, "errors", share=0.25, healthy=2) as bad, httpx.Client() as client:
        found = [ask(client, bad.url, "bad", prompts()[0], VERSION_HEADER) for _ in range(10)]
    assert [one.ok for one in found] == [True] * 5 + [False] + [True] * 3 + [False]
    assert {one.served for one in found if one.ok} == {"bad"}
    assert engine.requests == {CHAMPION: 8}


def test_the_time_of_an_undo_is_from_the_decision_to_the_gateways_word() -> None:
    events = [
        {"time": 1.0, "from": "weighing", "to": "watching"},
        {"time": 5.0, "from": "watching", "to": "withdrawing"},
        {"time": 5.75, "from": "withdrawing", "to": "draining"},
    ]
    assert undo_seconds(events) == 0.75
    assert undo_seconds(events[:1]) is None
