"""What a rollout says: each step with its observed traffic, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["go_on", "hold", "undo"]


@dataclass(frozen=True)
class SideStats:
    """Requests that one version answered in one step. Times in seconds, in order of arrival."""

    version: str
    requests: int
    errors: int
    first_token_seconds: tuple[float, ...]

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Step:
    """One weight of the canary and what was seen at it."""

    weight: int
    stable: SideStats
    candidate: SideStats
    decision: Decision
    reason: str
    seconds: float

    @property
    def observed_share(self) -> float:
        """Share of the step's requests that the candidate answered."""
        total = self.stable.requests + self.candidate.requests
        return self.candidate.requests / total if total else 0.0


@dataclass(frozen=True)
class Rollout:
    """`reference` is the modelcar served at 100 percent at the end when the outcome is completed."""

    target: str
    model: str
    engine_model: str
    reference: str
    previous: str
    warmup_seconds: tuple[float, ...]
    steps: tuple[Step, ...]
    outcome: Literal["completed", "undone"]
    reason: str
