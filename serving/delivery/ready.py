"""Is an applied object in force? Pure: the object as the API server has it in, what is missing out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.delivery.trouble import of_route

Object = Mapping[str, Any]
READY_CONDITION = {"InferenceService": "PredictorReady", "LLMInferenceService": "WorkloadsReady"}
"""Ready of an InferenceService waits for an address of its own as well, which nobody asks here: the pool selects its pods."""


def missing(found: Object) -> str:
    """Empty where it is ready, and for kinds that are in force when they are applied."""
    kind, status = found["kind"], found.get("status") or {}
    if kind == "HTTPRoute":
        return _route(found)
    name, generation = f"{kind} {found['metadata']['name']}", found["metadata"].get("generation", 0)
    if kind not in ("Deployment", *READY_CONDITION):
        return ""
    if status.get("observedGeneration", 0) < generation:
        return f"{name} was not seen by its controller yet"
    if kind == "Deployment":
        return _rollout(name, found, status)
    wanted = READY_CONDITION[kind]
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    condition = conditions.get(wanted) or {}
    if condition.get("status") == "True" or _stopped(found):
        return ""
    return f"{name}: {wanted} is {condition.get('status', 'unknown')} {condition.get('message', '')}".rstrip()


def _rollout(name: str, found: Object, status: Object) -> str:
    """As `kubectl rollout status` has it."""
    wanted = found["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    for condition in status.get("conditions") or ():
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return f"{name}: {condition.get('message', '')}"
    if updated < wanted or status.get("replicas", 0) > updated or available < wanted:
        return f"{name} has {available} of {wanted} replicas available, {updated} of them new"
    return ""


def _route(found: Object) -> str:
    """Weights count when the gateway has taken them."""
    name, generation = f"HTTPRoute {found['metadata']['name']}", found["metadata"].get("generation", 0)
    if why := of_route(found):
        return f"{name}: {why}"
    parents = (found.get("status") or {}).get("parents") or ()
    seen = [each.get("observedGeneration", 0) for parent in parents for each in parent.get("conditions") or ()]
    return f"{name}: its gateway has not taken the last change yet" if min(seen, default=0) < generation else ""


def _stopped(found: Object) -> bool:
    return (found["metadata"].get("annotations") or {}).get("serving.kserve.io/stop") == "true"
