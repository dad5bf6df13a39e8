"""Kueue: the LocalQueue of the namespace and what it leads to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import CLUSTER_QUEUE, FLAVOR, GPU, PIPELINE, PRIORITIES, QUEUE, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object, is_true, said
from serving.cluster_doctor.namespaces import absent, apply
from serving.cluster_doctor.paths import LOCAL_QUEUE, kueue
from serving.fit.quantity import parse_quantity

PLATFORM = "sync the platform's kueue-config"


def check_local_queue(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    where, found = f"{PIPELINE}/{QUEUE}", cluster.get(LOCAL_QUEUE)
    if found is None:
        yield absent("local-queue", where, apply(wanted))
        return
    leads_to = found["spec"].get("clusterQueue")
    if leads_to != CLUSTER_QUEUE:
        yield Finding("local-queue", where, f"leads to {leads_to}", CLUSTER_QUEUE, apply(wanted))
    elif found["spec"].get("stopPolicy", "None") != "None":
        yield Finding("local-queue", where, f"stopPolicy {found['spec']['stopPolicy']}", "None", apply(wanted))
    elif not is_true(found, "Active") and _in_order(cluster):
        yield Finding("local-queue", where, said(found, "Active"), "Active", "see the log of kueue-controller-manager")


def _in_order(cluster: Cluster) -> bool:
    """A LocalQueue is as active as its ClusterQueue, so the latter is named alone."""
    queue = cluster.get(kueue("clusterqueues", CLUSTER_QUEUE))
    return queue is not None and is_true(queue, "Active")


def check_cluster_queue(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    found = cluster.get(kueue("clusterqueues", CLUSTER_QUEUE))
    if found is None:
        yield absent("cluster-queue", CLUSTER_QUEUE, PLATFORM)
        return
    if found["spec"].get("stopPolicy", "None") != "None":
        yield Finding("cluster-queue", CLUSTER_QUEUE, f"stopPolicy {found['spec']['stopPolicy']}", "None", PLATFORM)
    elif not is_true(found, "Active") and _flavors(found) and not _flavor_absent(cluster, found):
        yield Finding(
            "cluster-queue", CLUSTER_QUEUE, said(found, "Active"), "Active", "see the log of kueue-controller-manager"
        )
    if (found["spec"].get("preemption") or {}).get("withinClusterQueue", "Never") == "Never":
        yield Finding(
            "cluster-queue-preemption", CLUSTER_QUEUE, "withinClusterQueue is Never: an urgent release waits for a training",
            "LowerPriority", PLATFORM, "note",
        )  # fmt: skip
    yield from _quotas(found, wanted)


def _flavors(queue: Object) -> set[str]:
    return {one["name"] for group in queue["spec"].get("resourceGroups") or () for one in group["flavors"]}


def _flavor_absent(cluster: Cluster, queue: Object) -> bool:
    return FLAVOR in _flavors(queue) and cluster.get(kueue("resourceflavors", FLAVOR)) is None


def _quotas(queue: Object, wanted: Expected) -> Iterator[Finding]:
    """The most that one flavor gives of each resource; a Job that asks for more, or for what is not covered, never starts."""
    given: dict[str, str] = {}
    for group in queue["spec"].get("resourceGroups") or ():
        for flavor in group["flavors"]:
            for one in flavor["resources"]:
                name, value = one["name"], str(one["nominalQuota"])
                given[name] = max(given.get(name, value), value, key=parse_quantity)
    for name, asked in wanted.training.items():
        if name not in given or parse_quantity(given[name]) < parse_quantity(asked):
            observed = f"{name} is {given[name]}" if name in given else f"{name} is not covered"
            yield Finding(
                "cluster-queue-quota", CLUSTER_QUEUE, observed, f"at least {asked}, one training",
                "raise nominalQuota in the platform's platform/kueue-config/clusterqueue.yaml",
            )  # fmt: skip


def check_flavor(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    queue = cluster.get(kueue("clusterqueues", CLUSTER_QUEUE))
    if not wanted.gpu or queue is None or FLAVOR not in _flavors(queue):
        return
    found = cluster.get(kueue("resourceflavors", FLAVOR))
    if found is None:
        yield absent("resource-flavor", FLAVOR, PLATFORM)
    elif not any(one.get("key") in (GPU, None) for one in found["spec"].get("tolerations") or ()):
        yield Finding("resource-flavor", FLAVOR, f"tolerates no taint {GPU}", "a toleration of it", PLATFORM)


def check_priorities(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    for name in PRIORITIES:
        if cluster.get(kueue("workloadpriorityclasses", name)) is None:
            yield absent("priority-class", name, PLATFORM)
