"""Drives a rollout: performs what the state machine asks for, tells it what came of it, and keeps the evidence of each step.

The target and the traffic are passed in, so a cluster's gateway fits too. Whatever ends the pipeline early, an exception or
Ctrl-C included, is an abort; after a kill the same call goes on where the rollout stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from serving.rollout.clients import ClientRequests
from serving.rollout.kept import Kept, Rollouts
from serving.rollout.kept_steps import Shown, keep_step, kept_steps
from serving.rollout.looks import look, look_at_shadow
from serving.rollout.machine import Aborted, Action, Done, Event, Failed, Judged, Restarted, State, Ticked
from serving.rollout.mirror import Shadow
from serving.rollout.model import Rollout, Step
from serving.rollout.plan import Blocked, Plan, Target
from serving.rollout.traffic import Traffic
from serving.rollout.warmth import WarmUp, WarmUpFailed, warm_up, with_golden

LOOK_SECONDS = 0.05
LEAST_REST = (
    4  # times as long as a look took: with many requests it takes a while, and the gateway needs the processor too
)
RETRY_SECONDS = 0.5
UNDO_ATTEMPTS = 6


class UndoNotConfirmed(Exception):
    """The target was told to give stable everything, and does not confirm it."""


@dataclass
class Drive:
    """One pipeline that drives one rollout. `on_step` is told each step that was decided."""

    kept: Kept
    plan: Plan
    target: Target
    traffic: Traffic
    on_step: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    warmed: WarmUp | None = None
    clients: ClientRequests | None = None
    shadow: Shadow | None = None
    refused: str = ""  # why the last action was not performed

    @property
    def state(self) -> State:
        return self.kept.state

    def to_the_end(self) -> Rollout:
        """Raises what the pipeline raised, after stable has all of the traffic again; but Blocked with everything as it is."""
        try:
            self._go(self.kept.tell(Restarted()))
        except Blocked:
            raise
        except BaseException as error:  # Ctrl-C too: stable gets everything back, then it goes on up
            self._end_early(error)
            raise
        return self.rollout()

    def rollout(self) -> Rollout:
        state, plan = self.state, self.plan
        outcome: Literal["completed", "undone"] = "completed" if state.phase == "completed" else "undone"
        times = self.warmed.first_tokens if self.warmed else ()
        return Rollout(
            plan.target, plan.model, plan.engine_model, plan.reference, state.stable, times, tuple(self.steps),
            outcome, state.reason, self._cold_start(), golden=self.warmed.golden if self.warmed else (0, 0),
        )  # fmt: skip

    def _cold_start(self) -> tuple[tuple[str, float], ...]:
        """Phases with seconds, as far as this pipeline went through them."""
        if self.warmed is None:
            return ()
        pull = (("pull", round(self.plan.pull_seconds, 3)),) if self.plan.pull_seconds else ()
        return (*pull, ("load", round(self.warmed.load_seconds, 3)), ("warm", round(self.warmed.warm_seconds, 3)))

    def _go(self, action: Action | None) -> None:
        attempts = 0
        while not self.state.over:
            attempts = attempts + 1 if action and action.kind == "withdraw" else 0
            if attempts > UNDO_ATTEMPTS:
                raise UndoNotConfirmed(
                    f"{self.state.model}: {self.state.reason}; the undo is not confirmed after {UNDO_ATTEMPTS} tries: "
                    f"{self.refused}. It is written down; mend that, then run this again"
                )
            if action is None:  # paused before its first weight
                time.sleep(LOOK_SECONDS)
                action = self._commanded()
            elif action.kind == "watch":
                action = self._watch(action)
            else:
                action = self._tell(self._perform(action))

    def _tell(self, event: Event | None) -> Action | None:
        return self.kept.tell(event) if event else None

    def _commanded(self) -> Action | None:
        return self._tell(self.kept.command())

    def _perform(self, action: Action) -> Event:
        state, plan = self.state, self.plan
        try:
            match action.kind:
                case "warm_up":
                    return self._warm_up(action)
                case "weigh":
                    self.target.weigh(plan.model, state.candidate, action.weight)
                case "promote":
                    self.target.promote(plan.model, state.candidate)
                case "withdraw":
                    self.target.restore(plan.model, state.stable)
                case "drain":
                    self.target.drain(plan.model, state.drain_seconds)
                case "remove":
                    self.target.remove(state.candidate)
        except Blocked:
            raise
        except Exception as error:  # noqa: BLE001 - each target has errors of its own, and an undo is tried again after any
            if not state.rising:
                time.sleep(RETRY_SECONDS)
            self.refused = str(error)
            return Failed(action.turn, f"{action.kind}: {error}")
        return Done(action.turn)

    def _warm_up(self, action: Action) -> Event:
        plan = self.plan
        commands: list[Event] = []

        def stop() -> bool:
            command = self.kept.command()
            if isinstance(command, Aborted):
                commands.append(command)
            else:
                self._tell(command)
            return bool(commands)

        self.target.place(plan.model, self.state.candidate)
        try:
            self.warmed = warm_up(
                plan.engine_url, plan.engine_model, plan.prompts, plan.warmup_requests, plan.warmup_budget, stop,
                plan.headers,
            )  # fmt: skip
            if plan.golden and not commands:
                self.warmed = with_golden(self.warmed, plan.engine_url, plan.engine_model, plan.golden, plan.headers)
        except WarmUpFailed as failed:
            return Failed(action.turn, str(failed))
        return commands[0] if commands else Done(action.turn)

    def _watch(self, action: Action) -> Action | None:
        """Traffic, a look after every answer, and the person's commands, until the machine leaves the step."""
        began = ticked = time.monotonic()
        looked, last, shown = None, None, Shown(self.kept.folder)
        following: Action | None = None
        shadow = None if action.weight else self.shadow
        traffic, since = (shadow.traffic, dict(shadow.counters())) if shadow else (self.traffic, {})
        if self.clients:
            self.clients.start(self.state.stable, self.state.candidate, action.weight)
        with shadow.flowing() if shadow else traffic.flowing(action.weight):
            while self.state.turn == action.turn:
                samples, now = traffic.samples(), time.monotonic()
                following = self._commanded() or self._tell(
                    Ticked(0.0 if shadow and shadow.comparing else now - ticked)
                )
                ticked = now
                asked = self.clients.samples() if self.clients else None
                seen = (len(samples), len(asked or ()), shadow.news if shadow else 0, self.state.paused)
                if self.state.turn == action.turn and seen != looked:
                    looked = seen
                    if shadow:
                        counted = shadow.counted(since)
                        last = look_at_shadow(self.state, samples, self.plan.policy, now - began, shadow, counted)
                    else:
                        last = look(self.state, samples, self.plan.policy, now - began, asked)
                    shown.show(last)
                    following = self.kept.tell(Judged(action.turn, last.decision, last.reason))
                rest = max(LOOK_SECONDS, LEAST_REST * (time.monotonic() - now))
                time.sleep(rest if self.state.turn == action.turn else 0)
        if last:
            self._keep(last)
        return following

    def _keep(self, step: Step) -> None:
        self.steps.append(step)
        keep_step(self.kept, step)
        self.on_step(step)

    def _end_early(self, error: BaseException) -> None:
        """Stable gets everything back even where the state cannot be kept any more."""
        self.target.restore(self.plan.model, self.state.stable) if self.state.rising else None
        self._go(self.kept.tell(Aborted(f"{type(error).__name__}: {error}")) or self.kept.tell(Restarted()))


def roll_out(
    rollouts: Rollouts,
    plan: Plan,
    target: Target,
    traffic: Traffic,
    on_step: Callable[[Step], None],
    clients: ClientRequests | None = None,
    shadow: Shadow | None = None,
) -> Rollout:
    """Bring `engine_model` to 100 percent of `model`'s traffic, or put the weight back where it was.

    `clients` is where their own requests are read; `shadow` what a step of weight 0 is judged by.

    An unfinished rollout of the same candidate is gone on with; one of another
    candidate is brought to its end first.
    Raises RolloutUnderWay, UndoNotConfirmed, and what the target raises.
    """
    with rollouts.driving():
        kept = rollouts.unfinished()
        if kept and kept.state.candidate != plan.engine_model:
            _end_other(kept, plan, target, traffic)
            kept = None
        if kept is None:
            stable = target.stable(plan.model)
            if stable == plan.engine_model:
                said = "it has all the traffic already"
                return Rollout(plan.target, plan.model, stable, plan.reference, stable, (), (), "completed", said)
            kept = rollouts.begin(State(plan.model, plan.engine_model, stable, *plan.start, way=plan.way))
        return Drive(
            kept, plan, target, traffic, on_step, kept_steps(kept), clients=clients, shadow=shadow
        ).to_the_end()


def _end_other(kept: Kept, plan: Plan, target: Target, traffic: Traffic) -> None:
    """A killed pipeline left it. It is undone, but not where it has all of the traffic already."""
    promoted = kept.state.phase == "promoting" and target.stable(plan.model) == kept.state.candidate
    if not promoted:
        kept.tell(Aborted(f"{plan.engine_model} is rolled out instead"))
    Drive(kept, plan, target, traffic, lambda _: None).to_the_end()
