"""What a rollout is asked to do, and what it needs of the place where it happens. Values and an interface only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import Messages
from serving.rollout.golden import Golden


class Blocked(Exception):
    """A person has to act before anything more is done. The rollout stays where it is, and goes on when it is run again."""


class Target(Protocol):
    """Where a candidate gets its weight. Each call returns only when it is in force, and may be made again."""

    def stable(self, model: str) -> str: ...

    def place(self, model: str, candidate: str) -> None:
        """Where it can be asked, with no weight."""

    def weigh(self, model: str, candidate: str | None, weight: int) -> None: ...

    def promote(self, model: str, candidate: str) -> None: ...

    def restore(self, model: str, stable: str) -> None: ...

    def drain(self, model: str, seconds: float) -> bool: ...

    def remove(self, candidate: str) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What is rolled out and how. `weights` in percent; hold, drain, budget and pull in seconds.

    `golden`: what the warm candidate must answer before it gets weight; nothing is compared where there is no record.
    `engine_url` is where the candidate is asked while it warms up, with `headers`. `target` is the delivery target's name; `way` the strategy
    with its reason, for people.
    """

    model: str
    engine_model: str
    reference: str
    engine_url: str
    prompts: Sequence[Messages]
    weights: Sequence[int]
    warmup_requests: int
    policy: AnalysisPolicy
    hold_seconds: float = 300
    drain_seconds: float = 30
    warmup_budget: float = inf
    pull_seconds: float = 0.0
    golden: Sequence[Golden] = ()
    target: str = "local"
    headers: Mapping[str, str] = field(default_factory=dict)
    way: str = ""

    @property
    def start(self) -> tuple[tuple[int, ...], float, float]:
        """What the state machine keeps of it."""
        return tuple(self.weights), self.hold_seconds, self.drain_seconds
