"""A member's workload in its three forms. Pure.

inferenceservice: KServe's STORAGE_URI puts the modelcar beside the engine, as the host platform serves it; the second one of an
adapter canary is an image volume. deployment: a plain Deployment with each modelcar as an image volume (Kubernetes 1.35 or newer),
without KServe. llminferenceservice: KServe's newer kind, for full models only.
"""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Desired, Member
from serving.manifests.modelcars import image_volumes
from serving.manifests.naming import evidence, labels, metadata
from serving.manifests.pod import pod_annotations, pod_spec

# A start that outlasts this is told as failed; the startup probe has ended it before.
PROGRESS_MARGIN = 900
STOP = {"serving.kserve.io/stop": "true"}  # KServe's Standard mode keeps one replica otherwise
FIXED = {"serving.kserve.io/autoscalerClass": "none"}  # no HorizontalPodAutoscaler: the release owns the replicas
# Requests come by the pool alone, not by a route of KServe's own past gateway and keys.
PRIVATE = {"networking.kserve.io/visibility": "cluster-local"}


def workload(desired: Desired, member: Member) -> dict[str, Any]:
    """Raises NotStampable."""
    makers = {
        "inferenceservice": _inference_service,
        "deployment": _deployment,
        "llminferenceservice": _llm_inference_service,
    }
    return makers[desired.form](desired, member)


def runs(desired: Desired, member: Member) -> bool:
    """With strategy swap only the member that has the traffic has an engine."""
    return desired.strategy != "swap" or desired.share_of(member) > 0


def _metadata(desired: Desired, member: Member, annotations: dict[str, str]) -> dict[str, Any]:
    """In strategy adapter the engine stays while versions come and go, so the evidence is on the route alone."""
    said = {} if desired.strategy == "adapter" else evidence(member)
    return metadata(desired, desired.name_of(member), "engine", annotations={**said, **annotations})


def _deployment(desired: Desired, member: Member) -> dict[str, Any]:
    name = desired.name_of(member)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(desired, member, {}),
        "spec": {
            "replicas": member.replicas if runs(desired, member) else 0,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": member.startup_seconds + PROGRESS_MARGIN,
            "strategy": strategy(desired),
            "selector": {"matchLabels": {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "engine"}},
            "template": {
                "metadata": {
                    "labels": labels(desired, name, "engine"),
                    "annotations": pod_annotations(desired, member),
                },
                "spec": _mounted(desired, member),
            },
        },
    }


def _mounted(desired: Desired, member: Member) -> dict[str, Any]:
    """The pod with modelcars as image volumes, before its other volumes."""
    spec = pod_spec(desired, member)
    named = [(path.rpartition("/")[2], path, image) for path, image in image_volumes(desired, member)]
    spec["volumes"][:0] = [
        {"name": name, "image": {"reference": image, "pullPolicy": "IfNotPresent"}} for name, _, image in named
    ]
    spec["containers"][0]["volumeMounts"][:0] = [
        {"name": name, "mountPath": path, "readOnly": True} for name, path, _ in named
    ]
    return spec


def _inference_service(desired: Desired, member: Member) -> dict[str, Any]:
    stopped = {} if runs(desired, member) else STOP
    made = _metadata(desired, member, {**FIXED, **stopped})
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {**made, "labels": {**made["labels"], **PRIVATE}},
        "spec": {
            "predictor": {
                "minReplicas": member.replicas,
                "maxReplicas": member.replicas,
                "timeout": desired.request_seconds,
                "deploymentStrategy": strategy(desired),
                "labels": labels(desired, desired.name_of(member), "engine"),
                "annotations": pod_annotations(desired, member),
                **_mounted(desired, member),
            }
        },
    }


def _llm_inference_service(desired: Desired, member: Member) -> dict[str, Any]:
    name = desired.name_of(member)
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": _metadata(desired, member, {}),
        "spec": {
            "model": {"uri": f"oci://{member.modelcar}", "name": desired.model},
            "replicas": member.replicas if runs(desired, member) else 0,
            "labels": labels(desired, name, "engine"),
            "annotations": pod_annotations(desired, member),
            "template": pod_spec(desired, member),
        },
    }


def strategy(desired: Desired) -> dict[str, Any]:
    """Two engines never fit on one GPU, so the old one ends first unless another GPU is free."""
    if not desired.surge:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
