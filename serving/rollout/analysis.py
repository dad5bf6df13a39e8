"""May the canary go on? Pure: counts and times in, a decision with its reason out. No data never passes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from serving.rollout.model import Decision, SideStats


@dataclass(frozen=True)
class AnalysisPolicy:
    """Limits of one step. `max_first_token_ratio` bounds the median of the candidate over that of stable.

    `first_token_floor` in seconds: below it a slower median is noise of the machine and no reason to undo.
    """

    min_requests: int
    max_error_rate: float
    max_first_token_ratio: float
    first_token_floor: float = 0.05


def judge_step(stable: SideStats, candidate: SideStats, policy: AnalysisPolicy) -> tuple[Decision, str]:
    """go_on, hold (too little data) or undo. Stable may be silent: at 100 percent it gets no requests."""
    if candidate.requests < policy.min_requests:
        return "hold", f"the candidate answered {candidate.requests} requests, required {policy.min_requests}"
    if candidate.error_rate > policy.max_error_rate:
        return "undo", (
            f"{candidate.errors} of {candidate.requests} candidate requests failed ({candidate.error_rate:.1%}), allowed {policy.max_error_rate:.1%}"
        )
    if not candidate.first_token_seconds:
        return "hold", "no candidate request measured its first-token time"
    observed = median(candidate.first_token_seconds)
    if not stable.first_token_seconds:
        return (
            "go_on",
            f"{candidate.requests} requests without failures above {policy.max_error_rate:.1%}; median first token {observed * 1000:.0f} ms",
        )
    reference = max(median(stable.first_token_seconds), policy.first_token_floor)
    ratio = observed / reference
    said = f"median first token {observed * 1000:.0f} ms against {median(stable.first_token_seconds) * 1000:.0f} ms of stable"
    if ratio > policy.max_first_token_ratio:
        return "undo", f"{said}: {ratio:.2f} times, allowed {policy.max_first_token_ratio:.2f}"
    return "go_on", f"{candidate.requests} requests, {candidate.errors} failed; {said}"
