"""A canary behind the real Envoy: a good one reaches 100 percent unnoticed, a bad one is taken back."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.kept import Kept, NoRollout, Rollouts, RolloutUnderWay
from serving.rollout.local import LocalTarget
from serving.rollout.machine import Action, State
from serving.rollout.model import Rollout, Sample, Step
from serving.rollout.plan import Plan
from serving.rollout.steps import Drive, roll_out
from serving.rollout.traffic import Traffic
from serving.rollout.warmth import WarmUpFailed, short_and_long, warm_up
from tasks.rollouts import abort, tell
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy

STABLE, CANDIDATE = "canary-stable", "canary-candidate"
PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
# so wide that a busy machine is no reason to undo, and far below what the bad ones do
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.1, max_first_token_ratio=8)


@dataclass(frozen=True)
class TurnsBad(LocalTarget):
    """The candidate is good while it warms up, and bad from its first weight on."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    behaviour: Behaviour = field(default_factory=Behaviour)

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        self.engine.requests[CANDIDATE] = 0
        self.engine.models[CANDIDATE] = self.behaviour
        super().weigh(model, candidate, weight)


@dataclass(frozen=True)
class Scene:
    """One model with STABLE at 100 percent, and the engine behind it."""

    envoy: Envoy
    engine: FakeEngine
    model: str
    folder: Path

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.folder / self.model)

    def roll_out(
        self,
        weights: tuple[int, ...] = (10, 50, 100),
        on_step: Callable[[Step], None] = lambda _: None,
        target: LocalTarget | None = None,
        traffic: Traffic | None = None,
        hold_seconds: float = 60,
    ) -> Rollout:
        plan = replace(self.plan(weights), hold_seconds=hold_seconds)
        return roll_out(self.rollouts, plan, target or self.target, traffic or self.traffic, on_step)

    def plan(self, weights: tuple[int, ...]) -> Plan:
        reference = "models/tickets@sha256:0"
        return Plan(
            self.model,
            CANDIDATE,
            reference,
            self.engine.url,
            PROMPTS,
            weights,
            3,
            POLICY,
            hold_seconds=60,
            drain_seconds=5,
        )

    @property
    def target(self) -> LocalTarget:
        return LocalTarget(self.envoy.gateway)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.envoy.url, self.model, PROMPTS, VERSION_HEADER)

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
def scene(envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path) -> Scene:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    (envoy.gateway.folder / "splits.json").unlink(
        missing_ok=True
    )  # a candidate that other tests promoted is not removed
    envoy.gateway.set_stable(model, STABLE)
    return Scene(envoy, engine, model, tmp_path)


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


def test_warm_up_times_the_first_token(engine: FakeEngine) -> None:
    engine.models[CANDIDATE] = Behaviour(first_token_seconds=0.1, chunk_seconds=0.1, chunks=2)
    warmed = warm_up(engine.url, CANDIDATE, PROMPTS, 3)
    assert len(warmed.first_tokens) == 3
    assert 0.1 <= min(warmed.first_tokens) < 0.2
    assert warmed.load_seconds >= 0.2  # the first answer: first token and one more
    assert warmed.warm_seconds >= 0.4


def test_a_candidate_is_warm_when_enough_answers_in_a_row_kept_the_budget(engine: FakeEngine) -> None:
    """The first answers pay for loading and compiling: they do not count."""
    engine.models[CANDIDATE] = Behaviour(cold_requests=4, cold_seconds=0.3)
    warmed = warm_up(engine.url, CANDIDATE, PROMPTS, 3, budget=0.15)
    assert len(warmed.first_tokens) == 7
    assert min(warmed.first_tokens[:4]) >= 0.3 > 0.15 >= max(warmed.first_tokens[4:])


def test_a_candidate_that_stays_cold_gets_no_weight(engine: FakeEngine) -> None:
    engine.models[CANDIDATE] = Behaviour(first_token_seconds=0.02)
    with pytest.raises(
        WarmUpFailed,
        match=r"is not warm after 25 requests: first token 0\.0\d s among the last 1, required at most 0\.01 s",
    ):
        warm_up(engine.url, CANDIDATE, PROMPTS, 1, budget=0.01)


def test_short_and_long_prompts_take_turns() -> None:
    prompts = [[{"role": "user", "content": "x" * length}] for length in (3, 1, 5, 2, 4)]
    assert [len(one[0]["content"]) for one in short_and_long(prompts)] == [1, 5, 2, 4, 3]


def test_an_engine_that_is_not_there_fails_the_warm_up() -> None:
    with pytest.raises(WarmUpFailed, match="ConnectError"):
        warm_up("http://127.0.0.1:1", CANDIDATE, PROMPTS, 1)


def pipeline(scene: Scene, **options: Any) -> tuple[threading.Thread, list[Rollout]]:
    """The rollout in a thread of its own, and what it ends with."""
    ended: list[Rollout] = []
    thread = threading.Thread(target=lambda: ended.append(scene.roll_out(**options)), daemon=True)
    thread.start()
    return thread, ended


def await_phase(scene: Scene, *phases: str) -> Kept:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = scene.rollouts.all()
        if found and found[-1].state.phase in phases:
            return found[-1]
        time.sleep(0.01)
    raise AssertionError(f"never {phases}")


def test_a_second_rollout_of_the_model_is_refused_while_one_is_under_way(scene: Scene) -> None:
    thread, ended = pipeline(scene, weights=(0, 100))
    kept = await_phase(scene, "watching")
    with pytest.raises(RolloutUnderWay, match=f"rollout status {scene.model}"):
        scene.roll_out()
    kept.send("abort", "enough seen")
    thread.join(30)
    assert [(one.outcome, one.reason) for one in ended] == [("undone", "enough seen")]
    scene.assert_stable_alone()


def test_a_paused_rollout_takes_no_step_until_it_is_resumed(scene: Scene) -> None:
    released = threading.Event()

    def pause(step: Step) -> None:
        if step.weight == 10:
            scene.rollouts.last().send("pause", "")
            released.set()

    thread, ended = pipeline(scene, on_step=pause)
    assert released.wait(30)
    kept = await_phase(scene, "watching")
    deadline = time.monotonic() + 30
    while not kept.state.paused and time.monotonic() < deadline:
        kept = await_phase(scene, "watching")
    asked = scene.engine.requests[CANDIDATE]
    while scene.engine.requests[CANDIDATE] < asked + 4 * POLICY.min_requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert scene.split.weight == 50
    kept.send("resume", "")
    thread.join(30)
    assert [one.outcome for one in ended] == ["completed"]


class Killed(BaseException):
    """Stands for kill -9: raised where nothing catches it, and the rollout is told nothing."""


def killed_at(scene: Scene, phase: str) -> None:
    """Leaves the folder and the gateway as a pipeline does that is killed when it has entered `phase`."""

    class Dying(Drive):
        def _perform(self, action: Action) -> Any:
            if self.state.phase == phase:
                raise Killed
            return super()._perform(action)

        def _watch(self, action: Action) -> Any:
            if self.state.phase == phase:
                raise Killed
            return super()._watch(action)

        def _end_early(self, error: BaseException) -> None:
            pass

    with pytest.raises(Killed), scene.rollouts.driving():
        state = State(scene.model, CANDIDATE, STABLE, (50, 100), 60)
        Dying(scene.rollouts.begin(state), scene.plan((50, 100)), scene.target, scene.traffic, print).to_the_end()


@pytest.mark.parametrize("phase", ["warming", "weighing", "watching", "promoting"])
def test_a_pipeline_that_was_killed_goes_on_where_it_stood(scene: Scene, phase: str) -> None:
    killed_at(scene, phase)
    seen: list[Step] = []
    rollout = scene.roll_out(weights=(50, 100), on_step=seen.append)
    assert rollout.outcome == "completed"
    assert [step.weight for step in rollout.steps] == [50, 100]
    assert len(seen) == (0 if phase == "promoting" else 2)
    assert len(scene.rollouts.all()) == 1
    assert scene.split == Split(scene.model, CANDIDATE, None, 0)


@pytest.mark.parametrize("phase", ["withdrawing", "draining", "removing"])
def test_an_undo_that_was_killed_is_finished_and_never_turned_round(scene: Scene, phase: str) -> None:
    scene.engine.models[CANDIDATE] = Behaviour(loadable=False)  # the warm-up fails
    killed_at(scene, phase)
    scene.engine.models[CANDIDATE] = Behaviour()
    rollout = scene.roll_out()
    assert (rollout.outcome, rollout.steps) == ("undone", ())
    assert CANDIDATE not in scene.engine.models
    scene.assert_stable_alone()


def test_a_killed_rollout_of_another_candidate_is_undone_first(scene: Scene) -> None:
    killed_at(scene, "watching")
    scene.engine.models["newer"] = Behaviour()
    plan = replace(scene.plan((50, 100)), engine_model="newer")
    rollout = roll_out(scene.rollouts, plan, scene.target, scene.traffic, print)
    assert (rollout.outcome, rollout.previous) == ("completed", STABLE)
    first, second = scene.rollouts.all()
    assert (first.state.phase, first.state.reason) == ("undone", "newer is rolled out instead")
    assert second.state.phase == "completed"


def test_a_killed_rollout_that_has_all_the_traffic_is_completed_not_undone(scene: Scene) -> None:
    """It was killed after the gateway was told and before that was written down."""
    killed_at(scene, "promoting")
    scene.envoy.gateway.set_stable(scene.model, CANDIDATE)
    scene.engine.models["newer"] = Behaviour()
    plan = replace(scene.plan((50, 100)), engine_model="newer")
    rollout = roll_out(scene.rollouts, plan, scene.target, scene.traffic, print)
    assert (rollout.outcome, rollout.previous) == ("completed", CANDIDATE)
    assert [kept.state.phase for kept in scene.rollouts.all()] == ["completed", "completed"]


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


def test_an_abort_works_where_the_pipeline_was_killed(scene: Scene) -> None:
    killed_at(scene, "watching")
    assert scene.split.weight == 50
    assert "undone" in abort(scene.rollouts, scene.target, "enough seen")
    assert (scene.rollouts.last().state.phase, scene.rollouts.last().state.reason) == ("undone", "enough seen")
    scene.assert_stable_alone()
    with pytest.raises(NoRollout, match="is undone: enough seen"):
        tell(scene.rollouts, "pause", "")
