"""The rollout's state machine under 10,000 random schedules of events, faults and kills, and each rule by name.

The world here performs actions as a gateway and an engine would: sometimes not, sometimes without saying so, sometimes
twice. Answers come late and again. The pipeline is killed between keeping the state and acting, and after acting.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import get_args

import pytest

from serving.rollout.kept import state_from_json, state_to_json
from serving.rollout.machine import (
    LONGEST_TICK_SECONDS,
    RISING,
    Aborted,
    Action,
    CandidateDied,
    Done,
    Event,
    Failed,
    Judged,
    Paused,
    Phase,
    Restarted,
    Resumed,
    State,
    Ticked,
    advance,
)

SCHEDULES = 10_000
START = State("tickets", "tickets-2", "tickets-1", (10, 50, 100), hold_limit_seconds=60)


@dataclass
class World:
    """What the clients meet: who is stable, the candidate's weight, and what is loaded."""

    stable: str = START.stable
    weight: int = 0
    loaded: set[str] = field(default_factory=lambda: {START.stable})
    warm: bool = False
    dead: bool = False

    def perform(self, action: Action) -> None:
        if action.kind == "warm_up":
            self.loaded.add(START.candidate)
            self.warm = not self.dead
        elif action.kind == "weigh":
            self.weight = action.weight
        elif action.kind == "promote":
            self.stable, self.weight = START.candidate, 0
        elif action.kind == "withdraw":
            self.stable, self.weight = START.stable, 0
        elif action.kind == "remove":
            self.loaded.discard(START.candidate)


@dataclass
class Schedule:
    """One rollout that is driven by dice. What was seen on the way is kept for the invariants."""

    dice: random.Random
    state: State = START
    action: Action | None = None
    world: World = field(default_factory=World)
    said: list[Event] = field(default_factory=list)
    ended_badly: bool = False  # aborted, dead, failed or judged bad: from here the weight may only fall

    def tell(self, event: Event) -> None:
        before = self.state
        after, action = advance(before, event)
        self.check(before, event, after, action)
        self.state = state_from_json(state_to_json(after))  # kept before anything is performed
        if action or after.turn != before.turn:
            self.action = action

    def check(self, before: State, event: Event, after: State, action: Action | None) -> None:
        if isinstance(event, Aborted | CandidateDied):
            assert not after.rising, f"{event} left it {after.phase}"
            self.ended_badly = self.ended_badly or before.rising
        if before.rising and not after.rising and after.phase != "completed":
            self.ended_badly = True
        if self.ended_badly:
            assert after.weight == 0 and not after.rising and after.phase != "completed"
            assert action is None or action.kind in ("withdraw", "drain", "remove"), f"{action} after the end"
        if not before.rising:
            assert not after.rising, f"{before.phase} came back as {after.phase}"
        assert after.turn >= before.turn
        if action and action.kind == "weigh":
            assert self.world.warm and not self.world.dead and action.weight in START.weights
        if action and action.kind == "remove":
            assert self.world.weight == 0 and self.world.stable == START.stable, "removed while it has traffic"

    def act(self) -> None:
        """Perform what is asked, or only say so, or neither; the answer is true, false or missing."""
        action, luck = self.action, self.dice.random()
        if action is None:
            return None
        weight = self.world.weight
        if luck < 0.85:
            self.world.perform(action)
            if self.ended_badly:
                assert self.world.weight <= weight, "the weight rose after the end"
        self.check_capacity()
        if action.kind == "watch":
            return self.say(Judged(action.turn, self.dice.choice(("go_on", "go_on", "hold", "undo")), "as seen"))
        if luck < 0.75:
            return self.say(Done(action.turn))
        return self.say(Failed(action.turn, "it broke")) if luck < 0.95 else self.tell(Restarted())

    def say(self, event: Event) -> None:
        self.said.append(event)
        self.tell(event)

    def check_capacity(self) -> None:
        """Whoever has weight is loaded, and stable is loaded whatever happens."""
        assert START.stable in self.world.loaded
        assert self.world.stable in self.world.loaded
        assert self.world.weight == 0 or START.candidate in self.world.loaded

    def disturb(self) -> None:
        roll = self.dice.random()
        if roll < 0.25 and self.said:
            self.tell(self.dice.choice(self.said))  # an answer of an earlier turn comes late, or again
        elif roll < 0.45:
            self.tell(Restarted())
        elif roll < 0.6:
            self.tell(Ticked(self.dice.choice((0.1, 1.0, 30.0, -1e9, 1e9))))
        elif roll < 0.75:
            self.tell(self.dice.choice((Paused(), Resumed())))
        elif roll < 0.8:
            self.tell(Aborted("a person said so"))
        elif roll < 0.84:
            self.world.dead = self.state.rising or self.world.dead
            self.tell(CandidateDied("the engine is gone"))

    def finish(self) -> None:
        """From here the world is honest: it must come to an end."""
        self.tell(Resumed())
        self.tell(Restarted())
        for _ in range(40):
            if self.state.over:
                return
            assert self.action, f"{self.state.phase} waits for nothing"
            self.world.perform(self.action)
            self.check_capacity()
            watching = self.action.kind == "watch"
            self.tell(Judged(self.action.turn, "go_on", "well") if watching else Done(self.action.turn))
        raise AssertionError(f"no end: {self.state}")


def run_schedule(seed: int) -> Schedule:
    made = Schedule(random.Random(seed))
    made.tell(Restarted())
    for _ in range(made.dice.randrange(60)):
        made.act() if made.dice.random() < 0.6 else made.disturb()
        made.check_capacity()
    made.finish()
    return made


def test_ten_thousand_random_schedules_keep_every_promise() -> None:
    ends = {"completed": 0, "undone": 0}
    for seed in range(SCHEDULES):
        made = run_schedule(seed)
        ends[made.state.phase] += 1
        if made.state.phase == "completed":
            assert (made.world.stable, made.world.weight) == (START.candidate, 0), seed
            assert not made.world.dead
        else:
            assert (made.world.stable, made.world.weight) == (START.stable, 0), seed
    assert min(ends.values()) > SCHEDULES // 50, f"the schedules hardly try one of the ends: {ends}"


def at(phase: Phase, **changes: object) -> State:
    return replace(START, phase=phase, turn=7, **changes)  # type: ignore[arg-type]


def straight(events: int) -> State:
    """After that many honest answers."""
    state, action = advance(START, Restarted())
    for _ in range(events):
        assert action
        answer = Judged(action.turn, "go_on", "") if action.kind == "watch" else Done(action.turn)
        state, action = advance(state, answer)
    return state


def test_an_honest_world_takes_it_up_step_by_step() -> None:
    seen = [(straight(n).phase, straight(n).weight) for n in range(9)]
    assert seen == [
        ("warming", 0), ("weighing", 10), ("watching", 10), ("weighing", 50), ("watching", 50),
        ("weighing", 100), ("watching", 100), ("promoting", 100), ("completed", 100),
    ]  # fmt: skip


@pytest.mark.parametrize("phase", sorted(RISING))
def test_abort_works_from_every_state_on_the_way_up(phase: Phase) -> None:
    after, action = advance(at(phase, weight=50, paused=True), Aborted("stop"))
    assert (after.phase, after.weight, after.reason) == ("withdrawing", 0, "stop")
    assert action == Action("withdraw", 8)


@pytest.mark.parametrize("phase", sorted(set(get_args(Phase)) - RISING))
@pytest.mark.parametrize("event", [Aborted("stop"), CandidateDied("gone"), Resumed(), Paused(), Ticked(1e6)])
def test_nothing_turns_it_round_on_the_way_down(phase: Phase, event: Event) -> None:
    after, action = advance(at(phase), event)
    assert (after.phase, after.weight, action) == (phase, 0, None)


def test_a_pause_stops_the_next_step_and_not_the_undo() -> None:
    paused, _ = advance(at("watching", weight=10), Paused())
    assert advance(paused, Judged(7, "go_on", ""))[0].phase == "watching"
    assert advance(paused, Judged(7, "undo", "slow"))[0].phase == "withdrawing"
    resumed, _ = advance(paused, Resumed())
    assert advance(resumed, Judged(7, "go_on", ""))[0] == replace(START, phase="weighing", turn=8, step=1, weight=50)


def test_a_pause_while_it_warms_up_gives_no_weight_until_it_is_resumed() -> None:
    paused, _ = advance(at("warming"), Paused())
    ready, action = advance(paused, Done(7))
    assert (ready.phase, ready.weight, action) == ("ready", 0, None)
    going, action = advance(ready, Resumed())
    assert (going.phase, action) == ("weighing", Action("weigh", 9, 10))


def test_a_hold_counts_down_and_then_undoes() -> None:
    state = at("watching", weight=10)
    state, _ = advance(state, Judged(7, "hold", "the candidate answered 0 requests"))
    for _ in range(11):
        state, action = advance(state, Ticked(5))
        assert action is None
    state, action = advance(state, Ticked(5))
    assert action == Action("withdraw", 8)
    assert state.reason == "at 10 %: no decision within 60 s: the candidate answered 0 requests"


@pytest.mark.parametrize("jump", [1e12, float("inf"), -1e12])
def test_a_clock_that_jumps_does_not_use_up_the_hold(jump: float) -> None:
    state, action = advance(at("watching", weight=10, held_seconds=10.0), Ticked(jump))
    assert action is None
    assert 10 <= state.held_seconds <= 10 + LONGEST_TICK_SECONDS


def test_a_pause_stops_the_countdown() -> None:
    state = at("watching", weight=10, paused=True, held_seconds=59.9)
    assert advance(state, Ticked(5)) == (state, None)


def test_a_restart_sets_the_weight_again_before_it_watches() -> None:
    state, action = advance(at("watching", step=1, weight=50), Restarted())
    assert (state.phase, action) == ("weighing", Action("weigh", 8, 50))


def test_withdrawing_is_tried_until_it_is_done_and_removing_three_times() -> None:
    state = at("withdrawing")
    for _ in range(50):
        state, action = advance(state, Failed(state.turn, "the gateway is down"))
        assert action == Action("withdraw", state.turn)
    state = at("removing")
    for _ in range(3):
        state, _ = advance(state, Failed(state.turn, "the engine is down"))
    assert state.phase == "undone"


@pytest.mark.parametrize("weights", [(), (10, 50), (50, 10, 100), (10, 10, 100), (-1, 100), (100, 110)])
def test_weights_that_do_not_rise_to_100_are_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        replace(START, weights=weights)


def test_a_candidate_that_is_stable_already_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to roll out"):
        replace(START, candidate=START.stable)
