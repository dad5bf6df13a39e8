"""A canary behind the real Envoy: a good one reaches 100 percent unnoticed, a bad one is taken back."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.ask import ask
from serving.rollout.model import Sample, Step
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy
from tests.fix_rollout_scene import CANDIDATE, POLICY, PROMPTS, STABLE, Scene, TurnsBad


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
    assert scene.engine.requests[CANDIDATE] >= 3 + rollout.steps[0].candidate.requests


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
        rollout = scene.roll_out(
            weights=(50, 100), target=TurnsBad(scene.envoy.gateway, engine=scene.engine, behaviour=behaviour)
        )
    assert rollout.outcome == "undone"
    assert rollout.reason.startswith("at 50 %: ")
    assert said in rollout.reason or (said == "candidate requests failed" and "failed requests: " in rollout.reason)
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
    rollout = scene.roll_out(weights=(0, 100), hold_seconds=0.5)
    assert rollout.reason == "at 0 %: no decision within 0 s: the candidate answered 0 requests, required 6"
    assert rollout.outcome == "undone"
    scene.assert_stable_alone()


def test_answers_of_a_third_version_end_it(scene: Scene) -> None:
    """Somebody else moved the gateway meanwhile."""
    scene.engine.models["third"] = Behaviour()

    def move(step: Step) -> None:
        scene.envoy.gateway.set_stable(scene.model, "third")

    rollout = scene.roll_out(weights=(50, 90, 100), on_step=move)
    assert rollout.outcome == "undone"
    assert "requests were answered by neither version" in rollout.reason


def test_a_first_release_canaries_against_the_base_model(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    engine.models[CANDIDATE] = Behaviour()
    rollout = Scene(envoy, engine, model, tmp_path).roll_out()
    assert (rollout.outcome, rollout.previous) == ("completed", BASE)
    assert {step.stable.version for step in rollout.steps} == {BASE}


def test_an_undone_candidate_leaves_the_engine_and_its_folder(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "adapters" / CANDIDATE).mkdir(parents=True)
    target = TurnsBad(scene.envoy.gateway, tmp_path / "adapters", None, scene.engine, Behaviour(error_share=1))
    assert scene.roll_out(weights=(50, 100), target=target).outcome == "undone"
    assert scene.engine.unloaded == [CANDIDATE]
    assert not list((tmp_path / "adapters").iterdir())


def test_a_running_stream_of_an_undone_candidate_is_finished(scene: Scene) -> None:
    scene.engine.models[CANDIDATE] = Behaviour(chunks=8, chunk_seconds=0.2)
    scene.envoy.gateway.set_weight(scene.model, CANDIDATE, 100)
    body = {"model": scene.model, "messages": [], "stream": True}
    with httpx.stream("POST", f"{scene.envoy.url}/v1/chat/completions", json=body, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        scene.target.restore(scene.model, STABLE)
        assert scene.ask().version == STABLE
        assert not scene.target.drain(scene.model, 0)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert scene.target.drain(scene.model, 10)
