"""A rollout as a state machine. Pure: a state and an event in, a new state and the action to perform out.

Up: warming → (ready) → weighing ⇄ watching, step by step → promoting → completed.
Down, from each of them: withdrawing → draining → removing → undone. There is no way from down to up.

An action is performed outside and answered with Done or Failed. It carries the turn it was asked in, and so does the
answer: one that comes late, twice, or from a pipeline that was killed since, counts for nothing. The state is kept
before its action is performed, and every action may be performed again, so a killed pipeline goes on with Restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from serving.rollout.model import Decision

Phase = Literal[
    "warming", "ready", "weighing", "watching", "promoting", "completed",
    "withdrawing", "draining", "removing", "undone",
]  # fmt: skip
Kind = Literal["warm_up", "weigh", "watch", "promote", "withdraw", "drain", "remove"]
ACTIONS: dict[Phase, Kind] = {
    "warming": "warm_up", "weighing": "weigh", "watching": "watch", "promoting": "promote",
    "withdrawing": "withdraw", "draining": "drain", "removing": "remove",
}  # fmt: skip
RISING: frozenset[Phase] = frozenset({"warming", "ready", "weighing", "watching", "promoting"})
OVER: frozenset[Phase] = frozenset({"completed", "undone"})
REMOVE_ATTEMPTS = 3
LONGEST_TICK_SECONDS = 5.0  # a machine that slept, or a clock that jumped, does not use up a hold


@dataclass(frozen=True)
class State:
    """`weights` in percent, rising; `weight` is the candidate's that was asked for last; `turn` grows with every action.

    `held_seconds` is the time spent in this step without a decision, pauses left out. `way` says by which strategy, and why.
    """

    model: str
    candidate: str
    stable: str
    weights: tuple[int, ...]
    hold_limit_seconds: float
    drain_seconds: float = 30
    phase: Phase = "warming"
    turn: int = 0
    step: int = 0
    weight: int = 0
    paused: bool = False
    held_seconds: float = 0.0
    attempts: int = 0
    reason: str = ""
    way: str = ""

    def __post_init__(self) -> None:
        if not self.weights or list(self.weights) != sorted(set(self.weights)) or not self.weights[0] >= 0:
            raise ValueError(f"weights {self.weights} must rise from 0 or more, e.g. 10, 50, 100")
        if self.weights[-1] != 100:
            raise ValueError(f"weights {self.weights} must end at 100")
        if self.candidate == self.stable:
            raise ValueError(f"{self.candidate} is stable already: there is nothing to roll out")

    @property
    def over(self) -> bool:
        return self.phase in OVER

    @property
    def rising(self) -> bool:
        """Whether it may still end completed."""
        return self.phase in RISING


@dataclass(frozen=True)
class Action:
    """`weight` is the candidate's percent for weigh and watch, and 0 for the others."""

    kind: Kind
    turn: int
    weight: int = 0


@dataclass(frozen=True)
class Done:
    """The action of this turn was performed."""

    turn: int


@dataclass(frozen=True)
class Failed:
    """The action of this turn was not performed, or nobody knows."""

    turn: int
    reason: str


@dataclass(frozen=True)
class Judged:
    """What the analysis says of the step that is watched."""

    turn: int
    decision: Decision
    reason: str


@dataclass(frozen=True)
class Ticked:
    """Seconds that passed since the last tick, by a clock that only goes forward."""

    seconds: float


@dataclass(frozen=True)
class Paused:
    """A person wants no further step for now."""


@dataclass(frozen=True)
class Resumed:
    """A person lets it go on."""


@dataclass(frozen=True)
class Aborted:
    """A person, or whatever ended the pipeline, wants stable back."""

    reason: str


@dataclass(frozen=True)
class CandidateDied:
    """The candidate does not answer any more. It gets no second chance in this rollout."""

    reason: str


@dataclass(frozen=True)
class Restarted:
    """A pipeline took the rollout up again and knows nothing of what was under way."""


Event = Done | Failed | Judged | Ticked | Paused | Resumed | Aborted | CandidateDied | Restarted
Move = tuple[State, Action | None]


def advance(state: State, event: Event) -> Move:
    """The next state, and the action to perform now; None: nothing new is to be done."""
    if state.over:
        return state, None
    match event:
        case Done(turn) | Failed(turn) | Judged(turn) if turn != state.turn:
            return state, None
        case Done():
            return _done(state)
        case Failed(_, reason):
            return _failed(state, reason)
        case Judged(_, decision, reason):
            return _judged(state, decision, reason)
        case Ticked(seconds):
            return _ticked(state, seconds)
        case Aborted(reason) | CandidateDied(reason):
            return _undo(state, reason) if state.rising else (state, None)
        case Paused():
            return replace(state, paused=state.rising), None
        case Resumed():
            return _resumed(state)
        case Restarted():
            return _restarted(state)


def _enter(state: State, phase: Phase) -> Move:
    """Into the phase, with its action where it has one."""
    after = replace(state, phase=phase, turn=state.turn + 1)
    kind = ACTIONS.get(phase)
    weight = after.weight if kind in ("weigh", "watch") else 0
    return after, Action(kind, after.turn, weight) if kind else None


def _step(state: State, number: int) -> Move:
    return _enter(replace(state, step=number, weight=state.weights[number], held_seconds=0.0), "weighing")


def _undo(state: State, reason: str) -> Move:
    return _enter(replace(state, weight=0, paused=False, attempts=0, reason=reason), "withdrawing")


def _done(state: State) -> Move:
    match state.phase:
        case "warming":
            return _enter(state, "ready") if state.paused else _step(state, 0)
        case "weighing":
            return _enter(state, "watching")
        case "promoting":
            said = f"{len(state.weights)} steps passed"
            return _enter(replace(state, reason=said, paused=False), "completed")
        case "withdrawing":
            return _enter(state, "draining")
        case "draining":
            return _enter(state, "removing")
        case "removing":
            return _enter(state, "undone")
    return state, None


def _failed(state: State, reason: str) -> Move:
    """On the way up a failure undoes. On the way down it is tried again; what cannot be drained or removed is left behind."""
    if state.rising:
        return _undo(state, reason)
    if state.phase == "withdrawing":
        return _enter(state, "withdrawing")
    if state.phase == "draining":
        return _enter(state, "removing")
    again = replace(state, attempts=state.attempts + 1)
    return _enter(again, "undone" if again.attempts >= REMOVE_ATTEMPTS else "removing")


def _judged(state: State, decision: Decision, reason: str) -> Move:
    if state.phase != "watching":
        return state, None
    if decision == "undo":
        return _undo(state, f"at {state.weight} %: {reason}")
    if decision == "hold" or state.paused:
        return replace(state, reason=reason), None
    last = state.step + 1 == len(state.weights)
    return _enter(state, "promoting") if last else _step(state, state.step + 1)


def _ticked(state: State, seconds: float) -> Move:
    if state.phase != "watching" or state.paused:
        return state, None
    passed = min(max(seconds, 0.0), LONGEST_TICK_SECONDS)
    held = replace(state, held_seconds=state.held_seconds + passed)
    if held.held_seconds < held.hold_limit_seconds:
        return held, None
    return _undo(
        held,
        f"at {held.weight} %: no decision within {held.hold_limit_seconds:.0f} s: {held.reason or 'nothing was seen'}",
    )


def _resumed(state: State) -> Move:
    going = replace(state, paused=False)
    return _step(going, 0) if state.phase == "ready" else (going, None)


def _restarted(state: State) -> Move:
    """The weight is set again before it is watched: nobody knows what the gateway was told meanwhile."""
    if state.phase == "watching":
        return _enter(state, "weighing")
    return _enter(state, state.phase) if state.phase in ACTIONS else (state, None)
