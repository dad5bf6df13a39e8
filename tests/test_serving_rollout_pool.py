"""Strategy pool behind the real Envoy: the candidate has an engine of its own, and no client notices the move."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout, Sample
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tests.fix_engine import Behaviour, FakeEngine, running_engine
from tests.fix_envoy import Envoy

OLD, NEW = "whole-model-1", "whole-model-2"
PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.0, max_first_token_ratio=8, steps=2)


@pytest.fixture
def second() -> Iterator[FakeEngine]:
    with running_engine() as engine:
        engine.models = {NEW: Behaviour()}
        yield engine


def released(envoy: Envoy, second: FakeEngine, model: str, folder: Path) -> Rollout:
    plan = Plan(model, NEW, "models/whole@sha256:0", second.url, PROMPTS, (50, 100), 3, POLICY, 60, 5)
    traffic = Traffic(envoy.url, model, PROMPTS, VERSION_HEADER)
    return roll_out(
        Rollouts(folder), plan, LocalTarget(envoy.gateway, candidate_engine=second.url), traffic, lambda _: None
    )


def test_the_candidate_takes_over_on_its_own_engine_and_no_client_notices(
    envoy: Envoy, engine: FakeEngine, second: FakeEngine, model: str, tmp_path: Path
) -> None:
    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    got: list[Sample] = []
    stop = threading.Event()

    def client() -> None:
        with httpx.Client(timeout=30) as asking:
            for messages in itertools.takewhile(lambda _: not stop.is_set(), itertools.cycle(PROMPTS)):
                got.append(ask(asking, envoy.url, model, messages, VERSION_HEADER))

    thread = threading.Thread(target=client)
    thread.start()
    try:
        rollout = released(envoy, second, model, tmp_path)
    finally:
        stop.set()
        thread.join()
    assert (rollout.outcome, rollout.previous) == ("completed", OLD)
    assert [one.error for one in got if not one.ok] == []
    assert envoy.gateway.splits()[model] == Split(model, NEW, stable_engine=second.url)
    assert NEW not in engine.requests
    assert second.requests[NEW] > 20
    assert set(Counter(one.served for one in got)) == {OLD, NEW}


def test_a_second_engine_that_dies_gives_everything_back(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    with running_engine() as second:
        second.models[NEW] = Behaviour(cut_share=0.5)  # the warm-up's one request is the first, which is not hit
        plan = Plan(model, NEW, "r", second.url, PROMPTS, (50, 100), 1, POLICY, 60, 5)
        target = LocalTarget(envoy.gateway, candidate_engine=second.url)
        traffic = Traffic(envoy.url, model, PROMPTS, VERSION_HEADER)
        rollout = roll_out(Rollouts(tmp_path), plan, target, traffic, lambda _: None)
    assert rollout.outcome == "undone"
    assert "candidate requests failed" in rollout.reason
    assert envoy.gateway.splits()[model] == Split(model, OLD)
    assert ask(httpx.Client(), envoy.url, model, PROMPTS[0], VERSION_HEADER).served == OLD
