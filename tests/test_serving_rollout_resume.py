"""A rollout that is paused, aborted, killed or met by a second one, behind the real Envoy."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from serving.gateway.envoy import Split
from serving.rollout.kept import Kept, NoRollout, RolloutUnderWay
from serving.rollout.machine import Action, State
from serving.rollout.model import Rollout, Step
from serving.rollout.steps import Drive, roll_out
from tasks.rollouts import abort, tell
from tests.fix_engine import Behaviour
from tests.fix_rollout_scene import CANDIDATE, POLICY, STABLE, Scene


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
    assert scene.rollouts.driven()
    kept.send("abort", "enough seen")
    thread.join(30)
    assert not scene.rollouts.driven()
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


def test_an_abort_works_where_the_pipeline_was_killed(scene: Scene) -> None:
    killed_at(scene, "watching")
    assert scene.split.weight == 50
    assert "undone" in abort(scene.rollouts, scene.target, "enough seen")
    assert (scene.rollouts.last().state.phase, scene.rollouts.last().state.reason) == ("undone", "enough seen")
    scene.assert_stable_alone()
    with pytest.raises(NoRollout, match="is undone: enough seen"):
        tell(scene.rollouts, "pause", "")
