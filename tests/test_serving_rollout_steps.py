"""A canary behind the real Envoy: a good one reaches 100 percent unnoticed, a bad one is taken back."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout, Step
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Sample, Traffic, WarmUpFailed, ask, warm_up
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy

STABLE, CANDIDATE = "canary-stable", "canary-candidate"
PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
# so wide that a busy machine is no reason to undo, and far below what the bad ones do
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.1, max_first_token_ratio=8)


@dataclass(frozen=True)
class TurnsBad(LocalTarget):
    """The candidate is good while it warms up, and bad from its first weight on."""

    engine: FakeEngine
    behaviour: Behaviour

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        self.engine.requests[CANDIDATE] = 0
        self.engine.models[CANDIDATE] = self.behaviour
        super().weigh(model, candidate, weight)


class Impatient(Traffic):
    """Gives up after 100 requests, not after 2000."""

    def until(self, enough: Callable[[Sequence[Sample]], bool], limit: int) -> list[Sample]:
        return super().until(enough, min(limit, 100))


@dataclass(frozen=True)
class Scene:
    """One model with STABLE at 100 percent, and the engine behind it."""

    envoy: Envoy
    engine: FakeEngine
    model: str

    def roll_out(
        self,
        weights: tuple[int, ...] = (10, 50, 100),
        on_step: Callable[[Step], None] = lambda _: None,
        target: LocalTarget | None = None,
        traffic: Traffic | None = None,
    ) -> Rollout:
        return roll_out(
            target=target or LocalTarget(self.envoy.gateway),
            target_name="local",
            model=self.model,
            engine_model=CANDIDATE,
            reference="models/tickets@sha256:0",
            engine_url=self.engine.url,
            prompts=PROMPTS,
            weights=weights,
            warmup_requests=3,
            policy=POLICY,
            traffic=traffic or Traffic(self.envoy.url, self.model, PROMPTS, VERSION_HEADER),
            on_step=on_step,
        )

    @property
    def split(self) -> Split:
        return self.envoy.gateway.splits()[self.model]

    def assert_stable_alone(self) -> None:
        assert self.split == Split(self.model, STABLE, None, 0)
        assert {self.ask().version for _ in range(10)} == {STABLE}

    def ask(self) -> Sample:
        with httpx.Client(timeout=30) as client:
            return ask(client, self.envoy.url, self.model, PROMPTS[0], VERSION_HEADER)


@pytest.fixture
def scene(envoy: Envoy, engine: FakeEngine, model: str) -> Scene:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    envoy.gateway.set_stable(model, STABLE)
    return Scene(envoy, engine, model)


@contextmanager
def background_client(scene: Scene) -> Iterator[list[Sample]]:
    """Somebody who asks for the public name the whole time."""
    samples: list[Sample] = []
    stop = threading.Event()

    def run() -> None:
        with httpx.Client(timeout=30) as client:
            for messages in itertools.takewhile(lambda _: not stop.is_set(), itertools.cycle(PROMPTS)):
                samples.append(ask(client, scene.envoy.url, scene.model, messages, VERSION_HEADER))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def test_a_good_candidate_takes_over_and_no_client_notices(scene: Scene) -> None:
    seen: list[Step] = []
    with background_client(scene) as samples:
        rollout = scene.roll_out(on_step=seen.append)
    assert (rollout.outcome, rollout.previous, rollout.reason) == ("completed", STABLE, "3 steps passed")
    assert [step.weight for step in rollout.steps] == [10, 50, 100]
    assert rollout.steps == tuple(seen)
    assert len(rollout.warmup_seconds) == 3
    for step in rollout.steps:
        assert step.decision == "go_on"
        assert step.candidate.requests >= POLICY.min_requests
        assert step.stable.requests >= POLICY.min_requests or step.weight == 100
        assert step.candidate.errors == step.stable.errors == 0
    assert rollout.steps[0].observed_share < 0.5 < rollout.steps[2].observed_share == 1.0
    assert scene.split == Split(scene.model, CANDIDATE, None, 0)
    failed = [sample for sample in samples if not sample.ok]
    assert not failed, f"{len(failed)} of {len(samples)} failed: {failed[0].error}"
    assert {sample.version for sample in samples} == {STABLE, CANDIDATE}


def test_the_candidate_is_warm_before_its_first_weight(scene: Scene) -> None:
    rollout = scene.roll_out(weights=(100,))
    first = [asked.model for asked in scene.engine.asked][:3]
    assert first == [CANDIDATE] * 3
    assert scene.engine.requests[CANDIDATE] == 3 + rollout.steps[0].candidate.requests


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(first_token_seconds=0.6), "times, allowed 8.00"),
        # every request, or four of five: the background client asks the same candidate, and may draw the bad ones
        (Behaviour(error_share=0.8), "candidate requests failed"),
        (Behaviour(error_share=1.0), "candidate requests failed"),
        (Behaviour(cut_share=0.8), "candidate requests failed"),
        (Behaviour(stream_error_share=0.8), "candidate requests failed"),
        (Behaviour(loadable=False), "candidate requests failed"),
    ],
    ids=["slow", "erroring", "dead", "cutting", "failing-late", "unloaded"],
)
def test_a_candidate_that_turns_bad_is_taken_back(scene: Scene, behaviour: Behaviour, said: str) -> None:
    with background_client(scene) as samples:
        rollout = scene.roll_out(weights=(50, 100), target=TurnsBad(scene.envoy.gateway, scene.engine, behaviour))
    assert rollout.outcome == "undone"
    assert rollout.reason.startswith("at 50 %: ")
    assert said in rollout.reason
    assert [step.decision for step in rollout.steps] == ["undo"]
    scene.assert_stable_alone()
    assert all(sample.ok for sample in samples if sample.version == STABLE)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (None, "HTTP 404"),
        (Behaviour(loadable=False), "HTTP 404"),
        (Behaviour(error_share=0.5), "HTTP 500"),
        (Behaviour(cut_share=0.5), "RemoteProtocolError"),
        (Behaviour(stream_error_share=0.5), "the engine failed in the middle of the stream"),
        (Behaviour(chunks=0), "no token came"),
    ],
    ids=["unknown", "not-loadable", "erroring", "cutting", "failing-late", "silent"],
)
def test_a_candidate_that_does_not_warm_up_gets_no_weight(scene: Scene, behaviour: Behaviour | None, said: str) -> None:
    del scene.engine.models[CANDIDATE]
    if behaviour:
        scene.engine.models[CANDIDATE] = behaviour
    rollout = scene.roll_out(on_step=lambda _: pytest.fail("no step may be taken"))
    assert (rollout.outcome, rollout.steps, rollout.warmup_seconds) == ("undone", (), ())
    assert f"did not answer as {CANDIDATE} while warming up: " in rollout.reason
    assert said in rollout.reason
    scene.assert_stable_alone()


@pytest.mark.parametrize("error", [RuntimeError("the terminal is gone"), KeyboardInterrupt()])
def test_whatever_ends_it_early_puts_the_weight_back(scene: Scene, error: BaseException) -> None:
    weights: list[int] = []

    def interrupt(step: Step) -> None:
        weights.append(scene.split.weight)
        raise error

    with pytest.raises(type(error)):
        scene.roll_out(weights=(50, 100), on_step=interrupt)
    assert weights == [50]
    scene.assert_stable_alone()


def test_too_little_traffic_is_no_reason_to_go_on(scene: Scene) -> None:
    """At 0 percent the candidate is never asked."""
    traffic = Impatient(scene.envoy.url, scene.model, PROMPTS, VERSION_HEADER)
    rollout = scene.roll_out(weights=(0, 100), traffic=traffic)
    assert rollout.reason == "at 0 %: the candidate answered 0 requests, required 6"
    assert rollout.steps[0].decision == "hold"
    scene.assert_stable_alone()


def test_answers_of_a_third_version_end_it(scene: Scene) -> None:
    """Somebody else moved the gateway meanwhile."""
    scene.engine.models["third"] = Behaviour()

    def move(step: Step) -> None:
        scene.envoy.gateway.set_stable(scene.model, "third")

    traffic = Impatient(scene.envoy.url, scene.model, PROMPTS, VERSION_HEADER)
    rollout = scene.roll_out(weights=(50, 90, 100), on_step=move, traffic=traffic)
    assert rollout.outcome == "undone"
    assert "requests were answered by neither version" in rollout.reason


def test_a_first_release_canaries_against_the_base_model(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    engine.models[CANDIDATE] = Behaviour()
    rollout = Scene(envoy, engine, model).roll_out()
    assert (rollout.outcome, rollout.previous) == ("completed", BASE)
    assert {step.stable.version for step in rollout.steps} == {BASE}


def test_warm_up_times_the_first_token(engine: FakeEngine) -> None:
    engine.models[CANDIDATE] = Behaviour(first_token_seconds=0.1, chunk_seconds=0.1, chunks=2)
    times = warm_up(engine.url, CANDIDATE, PROMPTS, 3)
    assert len(times) == 3
    assert 0.1 <= min(times) < 0.2


def test_an_engine_that_is_not_there_fails_the_warm_up() -> None:
    with pytest.raises(WarmUpFailed, match="ConnectError"):
        warm_up("http://127.0.0.1:1", CANDIDATE, PROMPTS, 1)
