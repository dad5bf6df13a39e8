"""One case of the cluster bench on the real control plane: what became of every pod, and how long applying took."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from serving.manifests.capacity import Answer, judge
from serving.manifests.model import Desired
from serving.manifests.needs import Need, needs
from serving.manifests.read_room import read_room
from serving.manifests.render import render
from tests.bench.cluster_cases import SIZES, Case
from tests.fix_applied import BASELINE, RESTRICTED, apply_all, pods_of
from tests.fix_cluster import GPU_TAINT, NOW, Cluster
from tests.fix_waiting import await_that

DENIED = {"exceeded quota": "quota", "violates PodSecurity": "restricted", "maximum memory usage": "limits"}
QUEUE = "kueue.x-k8s.io"


@dataclass(frozen=True)
class Outcome:
    """`kinds`: what kept pods away: nodes, quota, limits, restricted. Seconds."""

    answer: Answer
    runs: bool
    kinds: frozenset[str]
    render_seconds: float
    apply_seconds: float
    pods: int

    @property
    def agrees(self) -> bool:
        """The same verdict, and no reason that was not told; an uncertain no may turn out either way."""
        if not self.answer.certain:
            return not self.answer.schedulable
        return self.answer.schedulable == self.runs and self.kinds <= told(self.answer)


def told(answer: Answer) -> set[str]:
    words = {"quota ": "quota", "LimitRange": "limits", "Pod Security": "restricted"}
    kinds = {kind for reason in answer.reasons for word, kind in words.items() if word in reason}
    nodes = any(
        word in reason
        for reason in answer.reasons
        for word in ("no node takes", "nodes that take", "GPUs together", "one order")
    )
    return kinds | ({"nodes"} if nodes else set())


def run(cluster: Cluster, api: Any, case: Case) -> Outcome:
    """In a namespace and on nodes of its own, which go afterwards."""
    namespace, beside = cluster.api.namespace(RESTRICTED if case.restricted else BASELINE), cluster.api.namespace({})
    wanted = replace(case.model, namespace=namespace)
    nodes = [f"gpu-{namespace[-6:]}-{index}" for index in range(len(case.nodes))]
    try:
        for name, gpus in zip(nodes, case.nodes, strict=True):
            _add_node(cluster, name, gpus)
        _limits(cluster, namespace, case)
        if case.job:
            _train(cluster, namespace, beside, case)
        room = await_that(lambda: _settled(read_room(api, wanted), len(nodes)))
        answer = judge(wanted, room)
        began = time.perf_counter()
        render(wanted)
        rendered = time.perf_counter()
        apply_all(cluster, wanted)
        applied = time.perf_counter()
        kept = await_that(lambda: _fate(cluster, wanted), 90)
        return Outcome(answer, not kept[0], frozenset(kept[0]), rendered - began, applied - rendered, kept[1])
    finally:
        _clear(cluster, (namespace, beside), nodes)


def _settled(room: Any, nodes: int) -> Any:
    """None until all new nodes take pods: a new one is kept free until its kubelet has reported."""
    ready = [node for node in room.nodes if all(taint.key == "nvidia.com/gpu" for taint in node.taints)]
    return room if len(ready) == nodes + 1 == len(room.nodes) else None


def _add_node(cluster: Cluster, name: str, gpus: int) -> None:
    cpu, memory = SIZES[gpus]
    size = {"cpu": cpu, "memory": memory, "ephemeral-storage": "100Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    cluster.add_node(name, size, l4=True)


def _limits(cluster: Cluster, namespace: str, case: Case) -> None:
    made: list[tuple[str, dict[str, Any]]] = []
    if case.quota:
        made.append(("ResourceQuota", {"hard": case.quota}))
    if case.largest_memory:
        made.append(("LimitRange", {"limits": [{"type": "Container", "max": {"memory": case.largest_memory}}]}))
    for kind, spec in made:
        path = f"/api/v1/namespaces/{namespace}/{kind.lower()}s/limits"
        document = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": "limits", "namespace": namespace},
            "spec": spec,
        }
        cluster.api.apply(path, document)
        if kind == "ResourceQuota":
            await_that(lambda path=path: (cluster.get(path).get("status") or {}).get("hard"))


def _train(cluster: Cluster, namespace: str, beside: str, case: Case) -> None:
    """A queued Job in a namespace beside; returns when Kueue and the scheduler have done what they will."""
    _queue(cluster, beside, namespace, case.queue)
    amounts = {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": str(case.job)}
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [GPU_TAINT],
        "containers": [
            {
                "name": "train",
                "image": "train",
                "resources": {"requests": amounts, "limits": {"nvidia.com/gpu": str(case.job)}},
            }
        ],
    }
    labels = {f"{QUEUE}/queue-name": "training"}
    template = {"metadata": {"labels": labels, "annotations": {"kube/runs-for": "600s"}}, "spec": pod}
    job = {"suspend": True, "backoffLimit": 0, "template": template}
    metadata = {"name": "train", "namespace": beside, "labels": labels}
    cluster.api.apply(
        f"/apis/batch/v1/namespaces/{beside}/jobs/train",
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job},
    )
    if case.job <= case.queue:
        await_that(lambda: any(_scheduled(each) is not None for each in pods_of(cluster, beside)))
    else:
        workloads = f"/apis/{QUEUE}/v1beta2/namespaces/{beside}/workloads"
        await_that(
            lambda: any((each.get("status") or {}).get("conditions") for each in cluster.get(workloads)["items"])
        )


def _queue(cluster: Cluster, beside: str, name: str, gpus: int) -> None:
    kind = {"apiVersion": f"{QUEUE}/v1beta2"}
    root = f"/apis/{QUEUE}/v1beta2"
    amounts = [("cpu", "8"), ("memory", "32Gi"), ("nvidia.com/gpu", str(gpus))]
    flavor = {"name": name, "resources": [{"name": each, "nominalQuota": size} for each, size in amounts]}
    group = {"coveredResources": [each for each, _ in amounts], "flavors": [flavor]}
    cluster.api.apply(
        f"{root}/resourceflavors/{name}", {**kind, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": {}}
    )
    cluster.api.apply(f"{root}/clusterqueues/{name}", {
        **kind, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": {"namespaceSelector": {}, "resourceGroups": [group]}})  # fmt: skip
    cluster.api.apply(f"{root}/namespaces/{beside}/localqueues/training", {
        **kind, "kind": "LocalQueue", "metadata": {"name": "training", "namespace": beside}, "spec": {"clusterQueue": name}})  # fmt: skip


def _scheduled(pod: dict[str, Any]) -> bool | None:
    """None until the scheduler has looked at it."""
    if pod["spec"].get("nodeName"):
        return True
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return False if any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions) else None


def _fate(cluster: Cluster, wanted: Desired) -> tuple[set[str], int] | None:
    """What kept pods away, and how many there are; None while something is undecided."""
    kinds: set[str] = set()
    total = 0
    failures = _failures(cluster, wanted.namespace)
    for need in needs(wanted):
        pods = pods_of(cluster, wanted.namespace, **{"app.kubernetes.io/name": need.name})
        decided = [_scheduled(each) for each in pods]
        if None in decided or not _complete(need, len(pods), failures):
            return None
        total += len(pods)
        kinds |= {"nodes"} if False in decided else set()
        kinds |= {
            kind for word, kind in DENIED.items() if len(pods) < need.count and word in failures.get(need.name, "")
        }
    return kinds, total


def _complete(need: Need, pods: int, failures: dict[str, str]) -> bool:
    return pods == need.count or (pods < need.count and need.name in failures)


def _failures(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Member → why its ReplicaSet cannot make pods."""
    found = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets")["items"]
    return {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: condition["message"]
        for each in found
        for condition in (each.get("status") or {}).get("conditions") or ()
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    }


def _clear(cluster: Cluster, namespaces: tuple[str, str], nodes: list[str]) -> None:
    """Queues and nodes go when no pod is left."""
    for name in namespaces:
        cluster.remove_namespace(name)
    for kind in ("clusterqueues", "resourceflavors"):
        cluster.api.client.request("DELETE", f"/apis/{QUEUE}/v1beta2/{kind}/{namespaces[0]}")
    for node in nodes:
        cluster.api.client.request("DELETE", f"/api/v1/nodes/{node}", json=NOW)
