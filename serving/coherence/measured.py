"""An engine's figures for a chain out of a rollout's record: what its canary measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RecordUnusable(Exception):
    """The record holds no measured times."""


def figures_of(name: str, rollout: Mapping[str, Any]) -> dict[str, Any]:
    """The `engines` block of a chain.yaml for the alias `name`; `rollout` is the record's JSON (serving.rollout.model.Rollout).

    prefill is the longest first-token time that a request of the candidate took, inter_token the largest median of a
    step, both in seconds. cold_start is told for a new engine alone (strategy pool): an adapter is loaded into one that
    runs. Raises RecordUnusable.
    """
    steps = rollout.get("steps") or []
    first = [float(each) for step in steps for each in step["candidate"]["first_token_seconds"]]
    gaps = [
        float(found["candidate"])
        for step in steps
        for found in step.get("findings", ())
        if found["metric"] == "inter_token" and found["candidate"]
    ]
    if not first or not gaps:
        lacking = "first-token times" if not first else "times between tokens"
        raise RecordUnusable(
            f"the rollout record of {name} holds no {lacking} ({len(steps)} steps, at least one with a streamed answer "
            "required); release it again, or write the figures into a chain.yaml"
        )
    figures = {"prefill": f"{max(first):.3f}s", "inter_token": f"{max(gaps):.4f}s"}
    if rollout.get("strategy") == "pool":
        figures["cold_start"] = f"{sum(float(seconds) for _, seconds in rollout.get('cold_start', ())):.1f}s"
    return {"liftlock": "chain", "engines": {name: figures}}
