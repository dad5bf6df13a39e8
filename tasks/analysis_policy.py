"""From release.yaml to what a canary's steps are judged by."""

from __future__ import annotations

from serving.rollout.analysis import AnalysisPolicy
from tasks.spec import DeliverySpec


def policy_of(delivery: DeliverySpec) -> AnalysisPolicy:
    """The analysis that the spec asks for."""
    return AnalysisPolicy(
        delivery.min_requests,
        delivery.max_error_rate,
        delivery.max_first_token_ratio,
        steps=len(delivery.steps),
        slo=delivery.slo.limits if delivery.slo else (),
    )
