"""Reads what a cluster has left for a model's pods, through the Kubernetes API. Needs get and list of nodes, pods, quotas and limits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kubernetes import client

from serving.fit.quantity import parse_quantity
from serving.manifests.model import Desired
from serving.manifests.naming import COMPONENT
from serving.manifests.needs import needs
from serving.manifests.room import PODS, Amounts, Node, Quota, Room, Taint

ENFORCE = "pod-security.kubernetes.io/enforce"
KEEPS_AWAY = ("NoSchedule", "NoExecute")
# Scopes under which a model's pods fall: they have requests and no deadline. Of other scopes they are none.
OWN_SCOPES = {"NotBestEffort", "NotTerminating"}
Counts = Mapping[str, Decimal]


def read_room(api: client.ApiClient, desired: Desired) -> Room:
    """The room for `desired`, with what of the model runs already. Raises kubernetes' ApiException.

    Pods that end before their successors start (strategy adapter, swap) count as gone.
    """
    core: Any = client.CoreV1Api(api)
    every = [pod for pod in core.list_pod_for_all_namespaces().items if pod.status.phase not in ("Succeeded", "Failed")]
    own = [pod for pod in every if _is_own(pod, desired)]
    running = _running(desired, own)
    leaving = {pod.metadata.uid for pod in own if _name(pod) not in running and not desired.surge}
    used: dict[str, Counter[str]] = {}
    for pod in every:
        if pod.spec.node_name and pod.metadata.uid not in leaving:
            used.setdefault(pod.spec.node_name, Counter()).update(_amounts(pod, "requests"))
    namespace = core.read_namespace(desired.namespace)
    version: Any = client.VersionApi(api).get_code()
    gone = [pod for pod in own if pod.metadata.uid in leaving]
    return Room(
        nodes=tuple(
            _node(node, used.get(node.metadata.name, {})) for node in core.list_node().items if _takes_pods(node)
        ),
        quotas=tuple(_quotas(core.list_namespaced_resource_quota(desired.namespace).items, gone)),
        largest=_largest(core.list_namespaced_limit_range(desired.namespace).items),
        restricted=(namespace.metadata.labels or {}).get(ENFORCE) == "restricted",
        version=(_number(version.major), _number(version.minor)),
        running=running,
    )


def _is_own(pod: Any, desired: Desired) -> bool:
    labels = pod.metadata.labels or {}
    return pod.metadata.namespace == desired.namespace and labels.get("app.kubernetes.io/part-of") == desired.model


def _name(pod: Any) -> str:
    return str((pod.metadata.labels or {}).get("app.kubernetes.io/name", ""))


def _running(desired: Desired, own: list[Any]) -> frozenset[str]:
    """Members and pickers whose pods stay as they are. With one engine for both adapters the engine is made anew."""
    counted = Counter(_name(pod) for pod in own if pod.spec.node_name)
    anew = {
        _name(pod)
        for pod in own
        if desired.strategy == "adapter" and (pod.metadata.labels or {}).get(COMPONENT) == "engine"
    }
    return frozenset(need.name for need in needs(desired) if counted[need.name] >= need.count and need.name not in anew)


def _takes_pods(node: Any) -> bool:
    ready = any(each.type == "Ready" and each.status == "True" for each in node.status.conditions or ())
    return ready and not node.spec.unschedulable


def _node(node: Any, used: Mapping[str, Any]) -> Node:
    free = {name: parse_quantity(size) - used.get(name, 0) for name, size in (node.status.allocatable or {}).items()}
    taints = (Taint(each.key, each.value or "") for each in node.spec.taints or () if each.effect in KEEPS_AWAY)
    return Node(node.metadata.name, node.metadata.labels or {}, tuple(taints), free)


def _amounts(pod: Any, kind: str) -> Counts:
    """What the scheduler counts: containers and sidecars together, or the largest init container; and the pod itself."""
    sidecars = [each for each in pod.spec.init_containers or () if each.restart_policy == "Always"]
    total: Counter[str] = Counter()
    for each in (*pod.spec.containers, *sidecars):
        total.update(_sizes(each, kind))
    for each in pod.spec.init_containers or ():
        for name, size in _sizes(each, kind).items():
            total[name] = max(total[name], size)
    total.update({name: parse_quantity(size) for name, size in (pod.spec.overhead or {}).items()})
    return {**total, PODS: Decimal(1)}  # type: ignore[dict-item]


def _sizes(container: Any, kind: str) -> dict[str, Any]:
    resources = getattr(container.resources, kind, None) if container.resources else None
    return {name: parse_quantity(size) for name, size in (resources or {}).items()}


def _quotas(found: Iterable[Any], gone: list[Any]) -> Iterable[Quota]:
    for quota in found:
        if quota.spec.scope_selector or set(quota.spec.scopes or ()) - OWN_SCOPES:
            continue
        status = quota.status
        hard, used = (status.hard or quota.spec.hard or {}), (status.used or {})
        left = {key: parse_quantity(size) - parse_quantity(used.get(key, "0")) for key, size in hard.items()}
        yield Quota(quota.metadata.name, {key: size + _freed(gone, key) for key, size in left.items()})


def _freed(gone: list[Any], key: str) -> Decimal:
    kind, _, resource = key.partition(".")
    name = resource if kind in ("requests", "limits") else key.removeprefix("count/")
    return sum(
        (_amounts(pod, "limits" if kind == "limits" else "requests").get(name, Decimal(0)) for pod in gone), Decimal(0)
    )


def _largest(found: Iterable[Any]) -> Amounts:
    """The least of what the LimitRanges allow one container."""
    largest: dict[str, Decimal] = {}
    for item in (item for each in found for item in each.spec.limits if item.type == "Container"):
        for name, size in (item.max or {}).items():
            largest[name] = min(parse_quantity(size), largest.get(name, parse_quantity(size)))
    return largest


def _number(text: str) -> int:
    """Of a version's part; clouds write 36+."""
    found = re.match(r"[0-9]+", text)
    return int(found[0]) if found else 0
