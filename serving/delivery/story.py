"""What a commit's message tells of the rollout so far: the step before it with its decision, or why it is undone."""

from __future__ import annotations

from serving.rollout.kept import Rollouts
from serving.rollout.kept_steps import kept_steps


def story(rollouts: Rollouts) -> tuple[str, ...]:
    """Of the last rollout; empty before its first decision."""
    found = rollouts.all()
    if not found:
        return ()
    kept = found[-1]
    said = [f"At {step.weight} %: {step.decision.replace('_', ' ')}: {step.reason}" for step in kept_steps(kept)[-1:]]
    return (*said, kept.state.reason) if not kept.state.rising else tuple(said)
