"""Why a delivered model is not in force, in the words of scheduler, kubelet and gateway. Argo CD 3 keeps no resource's health."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serving.delivery.kube_api import KubeApi
from serving.kube.connect import ClusterRefused, ClusterUnreachable

SHOWN = 4
Object = Mapping[str, Any]


def trouble(api: KubeApi, namespace: str, model: str) -> str:
    """A clause for the end of a message; empty where nothing is found, or nobody can say."""
    said: list[str] = []
    try:
        pods = api.list("v1", "Pod", namespace, f"app.kubernetes.io/part-of={model}")
        said += [f"Pod {pod['metadata']['name']}: {why}" for pod in pods if (why := of_pod(pod))]
        route = api.get(api.path("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, f"{model}-route"))
        said += [f"HTTPRoute {model}-route: {why}" for why in [of_route(route)] if why] if route else []
    except (ClusterRefused, ClusterUnreachable):
        pass
    return "".join(f"; {each}" for each in said[:SHOWN])


def of_pod(pod: Object) -> str:
    """Pure; empty for a ready pod."""
    status = pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    waiting = next(_waiting(status), None)
    if waiting:
        return waiting
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', '')}"
    why = (conditions.get("Ready") or {}).get("message") or "its probe has not passed"
    return f"{status.get('phase', 'Pending')}, not Ready: {why}"


def _waiting(status: Object) -> Iterator[str]:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waits = (container.get("state") or {}).get("waiting")
        if waits:
            yield f"{container['name']} {waits.get('reason', 'waits')} {waits.get('message', '')}".strip()


def of_route(route: Object) -> str:
    """Pure; empty where every gateway that it names has taken it."""
    parents = (route.get("status") or {}).get("parents") or ()
    if not parents:
        return "no gateway has taken it"
    bad = [
        f"{each['type']} is {each['status']}: {each.get('message', '')}"
        for parent in parents
        for each in parent.get("conditions") or ()
        if each["type"] in ("Accepted", "ResolvedRefs") and each["status"] != "True"
    ]
    return "; ".join(bad)
