"""drill: deliberately bad releases through the real gateway and engine, to show that the undo works.

Each has a model name of its own that no client uses, with the served champion as stable; the candidate is a faulty engine before
the real one. So no client meets a bad answer, and the champion is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.gateway.envoy import VERSION_HEADER
from serving.gateway.model import Split
from serving.gateway.state import Gateway
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.faulty import Fault, FaultyEngine
from serving.rollout.golden import record
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tasks.gateway_keys import own_headers

WEIGHTS = (50, 100)
WARM_UP = 3
POLICY = AnalysisPolicy(min_requests=12, max_error_rate=0.0, max_first_token_ratio=2.0, steps=len(WEIGHTS), golden=True)
HANG_PATIENCE_SECONDS = 5  # a request to a hung engine has failed after it
PATIENCE_SECONDS = 60  # a slow answer on a busy machine is slow, and not failed
HOLD_SECONDS = 120
SUBJECTS = ("a parcel that did not come", "a bill that is too high", "a password that is lost", "a broken screen")


class DrillFailed(Exception):
    """A bad release was not undone, or a good one was."""


@dataclass(frozen=True)
class Drilled:
    """What came of one deliberate fault. `undo_seconds` from the deciding request until stable had everything."""

    fault: Fault
    passed: bool
    outcome: str
    reason: str
    candidate_requests: int
    undo_seconds: float | None


def prompts() -> list[list[dict[str, str]]]:
    """Short and long, and none twice."""
    return [
        [
            {
                "role": "user",
                "content": f"Customer {number} writes about {subject}." + " Please answer politely." * (number % 7),
            }
        ]
        for number, subject in enumerate(SUBJECTS * 6)
    ]


def drill(
    gateway: Gateway,
    gateway_url: str,
    rollouts: Rollouts,
    model: str,
    faults: Sequence[Fault],
    tell: Callable[[Drilled], None],
) -> tuple[Drilled, ...]:
    """`rollouts` keeps those of the drill's own model name. Raises what the gateway raises."""
    split = gateway.splits().get(model) or Split(model, gateway.base_model)
    found = []
    try:
        for fault in faults:
            drilled = _one(gateway, gateway_url, rollouts, split, fault)
            tell(drilled)
            found.append(drilled)
    finally:
        gateway.forget(rollouts.folder.name)
    return tuple(found)


def _one(gateway: Gateway, gateway_url: str, rollouts: Rollouts, split: Split, fault: Fault) -> Drilled:
    """The golden answers are stable's own of this minute. They are compared in the steps and not before, because what a wrong
    candidate is to show is the undo.
    """
    name, candidate, stable = rollouts.folder.name, f"drill-{fault}", split.stable
    upstream = split.stable_engine or gateway.engine_url
    gateway.set_stable(name, stable, split.stable_engine)
    with FaultyEngine(upstream, candidate, stable, fault, healthy=WARM_UP) as engine:
        target = LocalTarget(gateway, candidate_engine=engine.url)
        headers, golden = own_headers(gateway.folder), record(upstream, stable, prompts())
        patience = HANG_PATIENCE_SECONDS if fault == "hang" else PATIENCE_SECONDS
        traffic = Traffic(
            gateway_url, name, prompts(), VERSION_HEADER, patience=patience, headers=headers, golden=golden,
            under_way=gateway.under_way,
        )  # fmt: skip
        plan = Plan(name, candidate, "drill", engine.url, prompts(), WEIGHTS, WARM_UP, POLICY, HOLD_SECONDS, 5)
        rollout = roll_out(rollouts, plan, target, traffic, lambda _: None)
        if rollout.outcome == "completed":
            gateway.set_stable(name, stable, split.stable_engine)
    return _told(rollout, fault, gateway.splits()[name].stable == stable, undo_seconds(rollouts.last().events()))


def _told(rollout: Rollout, fault: Fault, stable_alone: bool, seconds: float | None) -> Drilled:
    wanted = "completed" if fault == "none" else "undone"
    asked = sum(step.candidate.requests for step in rollout.steps)
    passed = rollout.outcome == wanted and stable_alone and (fault == "none" or bool(rollout.steps))
    return Drilled(
        fault, passed, rollout.outcome, rollout.reason, asked, seconds if rollout.outcome == "undone" else None
    )


def undo_seconds(events: Sequence[dict[str, Any]]) -> float | None:
    """From the event that decided until the gateway confirmed that stable has everything; None where nothing was undone."""
    decided = next((one["time"] for one in events if one["to"] == "withdrawing"), None)
    restored = next((one["time"] for one in events if one["from"] == "withdrawing" and one["to"] == "draining"), None)
    return None if decided is None or restored is None else round(restored - decided, 3)
