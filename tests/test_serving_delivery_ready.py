"""When an applied object is in force, and what is said while it is not, by objects as the API server writes them."""

from __future__ import annotations

from typing import Any

import pytest

from serving.delivery.conflicts import Conflict, read_conflicts
from serving.delivery.ready import missing
from serving.delivery.trouble import of_pod, of_route


def deployment(generation: int = 2, observed: int = 2, **status: int) -> dict[str, Any]:
    metadata = {"name": "x", "generation": generation}
    counted = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, **status}
    return {
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 2},
        "status": {"observedGeneration": observed, **counted},
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (deployment(), ""),
        (deployment(observed=1), "not seen by its controller"),
        (deployment(availableReplicas=1), "1 of 2 replicas available"),
        (deployment(updatedReplicas=1), "1 of them new"),
        (deployment(replicas=3), "2 of 2 replicas available"),  # one of the version before still runs
        ({"kind": "ConfigMap", "metadata": {"name": "x"}}, ""),
    ],
)
def test_a_deployment_is_in_force_when_every_replica_is_new_and_available(found: Any, said: str) -> None:
    assert said in missing(found) and bool(missing(found)) == bool(said)


def service(status: str, *, stopped: bool = False) -> dict[str, Any]:
    annotations = {"serving.kserve.io/stop": "true"} if stopped else {}
    conditions = [
        {"type": "PredictorReady", "status": status, "message": "no pod"},
        {"type": "Ready", "status": "False"},
    ]
    metadata = {"name": "x", "generation": 1, "annotations": annotations}
    return {
        "kind": "InferenceService",
        "metadata": metadata,
        "status": {"observedGeneration": 1, "conditions": conditions},
    }


def test_an_inference_service_is_in_force_by_its_predictor_alone_and_a_stopped_one_at_once() -> None:
    assert missing(service("True")) == ""
    assert missing(service("False")) == "InferenceService x: PredictorReady is False no pod"
    assert missing(service("False", stopped=True)) == ""


def route(accepted: str | None = "True", observed: int = 3) -> dict[str, Any]:
    kinds = [{"type": "Accepted", "status": accepted, "message": "no such pool", "observedGeneration": observed}]
    parents = [{"conditions": kinds}] if accepted else []
    return {"kind": "HTTPRoute", "metadata": {"name": "x", "generation": 3}, "status": {"parents": parents}}


def test_a_route_is_in_force_when_its_gateway_has_taken_the_last_change() -> None:
    assert missing(route()) == "" and of_route(route()) == ""
    assert "has not taken the last change" in missing(route(observed=2))
    assert missing(route(None)) == "HTTPRoute x: no gateway has taken it"
    assert missing(route("False")) == "HTTPRoute x: Accepted is False: no such pool"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, ""),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/5 nodes"}]},
            "not scheduled: 0/5 nodes",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "vllm", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
                ]
            },
            "vllm ImagePullBackOff not found",
        ),
        ({"phase": "Running"}, "Running, not Ready: its probe has not passed"),
    ],
)
def test_why_a_pod_is_not_ready(status: Any, said: str) -> None:
    assert of_pod({"status": status}) == said


def test_conflicts_are_read_from_what_the_api_server_refuses() -> None:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "field": ".spec.replicas",
        },
        {"reason": "FieldValueInvalid", "message": "something else", "field": ".spec"},
    ]
    assert read_conflicts("Deployment", "x", causes) == (Conflict("Deployment", "x", ".spec.replicas", "kubectl-edit"),)
