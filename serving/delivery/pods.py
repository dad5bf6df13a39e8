"""Why the pods of a model are not ready, in the words of scheduler and kubelet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.delivery.kube_api import ClusterRefused, ClusterUnreachable, KubeApi

SHOWN = 3


def why_not_ready(api: KubeApi, namespace: str, model: str) -> str:
    """A clause for the end of a message; empty where all are ready, or nobody can say."""
    try:
        pods = api.list("v1", "Pod", namespace, f"app.kubernetes.io/part-of={model}")
    except (ClusterRefused, ClusterUnreachable):
        return ""
    said = [f"pod {pod['metadata']['name']}: {why}" for pod in pods if (why := reason_of(pod))]
    return "".join(f"; {each}" for each in said[:SHOWN])


def reason_of(pod: Mapping[str, Any]) -> str:
    """Pure; empty for a ready pod."""
    status = pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            return f"{container['name']} {waiting.get('reason', 'waits')} {waiting.get('message', '')}".strip()
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', '')}"
    return f"{status.get('phase', 'Pending')}, not Ready: {(conditions.get('Ready') or {}).get('message') or 'its probe has not passed'}"
