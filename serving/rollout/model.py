"""What a rollout says: each step with its observed traffic and its evidence, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["go_on", "hold", "undo"]


@dataclass(frozen=True)
class Sample:
    """One request. `version` is the gateway's word for who answered and `served` the engine's own; empty where nothing answered.

    Times in seconds. `tokens` are the answer's; `finish` is the engine's reason, such as stop or length. `different`: from the
    answer on the release's record; None: there is none for this prompt.
    """

    version: str
    ok: bool
    first_token_seconds: float | None
    error: str = ""
    served: str = ""
    seconds: float = 0.0
    tokens: int = 0
    finish: str = ""
    empty: bool = False
    refused: bool = False
    different: bool | None = None

    @property
    def answered_by(self) -> str:
        return self.served or self.version

    @property
    def inter_token_seconds(self) -> float | None:
        """Mean time between two tokens; None for an answer of one token."""
        if self.first_token_seconds is None or self.tokens < 2:
            return None
        return (self.seconds - self.first_token_seconds) / (self.tokens - 1)


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
class Share:
    """Proof of the split: how many answers the engine gave as the candidate, and the exact interval of the share."""

    asked: float
    candidate: int
    total: int
    low: float
    high: float
    shown: bool


@dataclass(frozen=True)
class Finding:
    """One metric in one step: a row of the evidence table.

    Times are medians in seconds, lengths medians in tokens, events shares of the requests; None: not measured. `low` and
    `high` hold the candidate's ratio to stable (times, lengths) at whatever request one looks, or its share (events).
    `odds` is the evidence that the candidate is worse; at `needed` it is undone.
    """

    metric: str
    stable: float | None
    candidate: float | None
    low: float | None
    high: float | None
    odds: float
    needed: float
    decision: Decision
    note: str = ""


@dataclass(frozen=True)
class Clients:
    """Clients' own requests in one step, judged apart from the replayed ones. They can undo, and hold nothing up."""

    stable: SideStats
    candidate: SideStats
    decision: Literal["go_on", "undo"]
    reason: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Step:
    """One weight of the canary and what was seen at it."""

    weight: int
    stable: SideStats
    candidate: SideStats
    decision: Decision
    reason: str
    seconds: float
    split: Share | None = None
    findings: tuple[Finding, ...] = ()
    clients: Clients | None = None

    @property
    def observed_share(self) -> float:
        """Share of the step's requests that the candidate answered."""
        total = self.stable.requests + self.candidate.requests
        return self.candidate.requests / total if total else 0.0


@dataclass(frozen=True)
class Rollout:
    """`reference` is the modelcar served at 100 percent at the end when the outcome is completed.

    `cold_start` are phases with seconds, such as ("pull", 1.2), ("load", 2.0), ("warm", 0.7). The steps' requests are the suite's own
    prompts, sent by the release: replayed traffic, not clients'. `why` says why this strategy. `golden`: so many golden prompts
    were answered as on record, of so many.
    """

    target: str
    model: str
    engine_model: str
    reference: str
    previous: str
    warmup_seconds: tuple[float, ...]
    steps: tuple[Step, ...]
    outcome: Literal["completed", "undone"]
    reason: str
    cold_start: tuple[tuple[str, float], ...] = ()
    traffic: Literal["replayed"] = "replayed"
    strategy: Literal["adapter", "pool", "swap"] = "adapter"
    why: str = ""
    golden: tuple[int, int] = (0, 0)
