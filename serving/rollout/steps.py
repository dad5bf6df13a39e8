"""A canary, step by step: warm-up, weights, analysis, and the way back. The target is passed in, so a cluster's gateway fits too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.rollout.analysis import AnalysisPolicy, judge_step
from serving.rollout.model import Rollout, SideStats, Step
from serving.rollout.traffic import Messages, Sample, Traffic, WarmUpFailed, warm_up

MAX_REQUESTS_PER_STEP = 2000


class Target(Protocol):
    """Where a canary gets its weight. Each call returns only when the weight is in force."""

    def stable(self, model: str) -> str: ...

    def weigh(self, model: str, candidate: str | None, weight: int) -> None: ...

    def promote(self, model: str, engine_model: str) -> None: ...


def side(version: str, samples: Sequence[Sample]) -> SideStats:
    mine = [sample for sample in samples if sample.version == version]
    times = tuple(sample.first_token_seconds for sample in mine if sample.first_token_seconds is not None)
    return SideStats(version, len(mine), sum(not sample.ok for sample in mine), times)


def take_step(weight: int, candidate: str, stable: str, traffic: Traffic, policy: AnalysisPolicy) -> Step:
    """Traffic at the weight in force until both sides have enough requests, then the decision."""
    began = time.monotonic()

    def enough(samples: Sequence[Sample]) -> bool:
        asked = [candidate] if weight == 100 else [candidate, stable]
        return all(sum(sample.version == version for sample in samples) >= policy.min_requests for version in asked)

    samples = traffic.until(enough, MAX_REQUESTS_PER_STEP)
    lost = [sample for sample in samples if sample.version not in (candidate, stable)]
    seen_stable, seen_candidate = side(stable, samples), side(candidate, samples)
    decision, reason = judge_step(seen_stable, seen_candidate, policy)
    if lost and decision == "go_on":
        decision, reason = "undo", f"{len(lost)} requests were answered by neither version: {lost[0].error}"
    return Step(weight, seen_stable, seen_candidate, decision, reason, round(time.monotonic() - began, 3))


def roll_out(
    *,
    target: Target,
    target_name: str,
    model: str,
    engine_model: str,
    reference: str,
    engine_url: str,
    prompts: Sequence[Messages],
    weights: Sequence[int],
    warmup_requests: int,
    policy: AnalysisPolicy,
    traffic: Traffic,
    on_step: Callable[[Step], None],
) -> Rollout:
    """Bring `engine_model` to 100 percent of `model`'s traffic, or put the weight back where it was.

    Whatever ends it early, an exception included, the candidate's weight goes back to zero.
    """
    previous = target.stable(model)
    steps: list[Step] = []

    def ended(outcome: str, reason: str, warmup: tuple[float, ...]) -> Rollout:
        done = "completed" if outcome == "completed" else "undone"
        return Rollout(target_name, model, engine_model, reference, previous, warmup, tuple(steps), done, reason)  # type: ignore[arg-type]

    try:
        warmup = warm_up(engine_url, engine_model, prompts, warmup_requests)
    except WarmUpFailed as failed:
        return ended("undone", str(failed), ())
    completed = False
    try:
        for weight in weights:
            target.weigh(model, engine_model, weight)
            step = take_step(weight, engine_model, previous, traffic, policy)
            steps.append(step)
            on_step(step)
            if step.decision != "go_on":
                return ended("undone", f"at {weight} %: {step.reason}", warmup)
        target.promote(model, engine_model)
        completed = True
    finally:
        if not completed:
            target.weigh(model, None, 0)
    return ended("completed", f"{len(steps)} steps passed", warmup)
