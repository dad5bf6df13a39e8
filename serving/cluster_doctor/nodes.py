"""Nodes with a GPU, and the storage class that volumes get. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import GPU, GPU_LABEL, L4, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object, is_true, said
from serving.cluster_doctor.paths import NODES, STORAGE
from serving.fit.quantity import parse_quantity

# Set by Kubernetes itself beside a condition that is looked at anyway.
MIRRORED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable")
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def check_nodes(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    if not wanted.gpu:
        return
    nodes = [one for one in cluster.items(NODES) if (one["metadata"].get("labels") or {}).get(GPU_LABEL) == L4]
    if not nodes:
        yield Finding(
            "gpu-node", f"{GPU_LABEL}={L4}", "no node has this label", "one, when a Job or an engine runs",
            "nothing to do where the pool scales from zero; else label the nodes, or set another node selector",
            "note" if wanted.idle_nodes else "missing",
        )  # fmt: skip
        return
    findings = [list(_node(one, wanted)) for one in nodes]
    if all(findings):  # one good node is enough
        yield from (one for found in findings for one in found)


def _node(node: Object, wanted: Expected) -> Iterator[Finding]:
    name, size = node["metadata"]["name"], node.get("status", {}).get("allocatable") or {}
    if not is_true(node, "Ready"):
        yield Finding("gpu-node", name, said(node, "Ready"), "Ready", f"kubectl describe node {name}")
    elif node["spec"].get("unschedulable"):
        yield Finding("gpu-node", name, "cordoned", "schedulable", f"kubectl uncordon {name}")
    elif not parse_quantity(str(size.get(GPU, "0"))):
        yield Finding(
            "gpu-node", name, f"offers no {GPU}", "at least 1",
            "see the device plugin and the driver: kubectl -n kube-system get pods | grep nvidia",
        )  # fmt: skip
    else:
        yield from _size(name, size, wanted)
        for taint in node["spec"].get("taints") or ():
            if taint.get("effect") in ("NoSchedule", "NoExecute") and taint.get("key") not in (GPU, *MIRRORED):
                yield Finding(
                    "gpu-node", name, f"taint {taint['key']}:{taint['effect']}", f"no taint but {GPU}, which the pods tolerate",
                    f"kubectl taint node {name} {taint['key']}-",
                )  # fmt: skip


def _size(name: str, size: Object, wanted: Expected) -> Iterator[Finding]:
    for resource, asked in wanted.training.items():
        if parse_quantity(str(size.get(resource, "0"))) < parse_quantity(asked):
            yield Finding(
                "gpu-node-size", name, f"{resource} is {size.get(resource, 0)}", f"at least {asked}, one training",
                "take a larger machine type, or ask for less in deploy/prefect/job-template.json",
            )  # fmt: skip


def check_storage(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    classes = cluster.items(STORAGE)
    if not any((one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true" for one in classes):
        there = ", ".join(one["metadata"]["name"] for one in classes) or "none"
        yield Finding(
            "storage-class", "default", f"no default among: {there}", "one default class",
            f"kubectl annotate storageclass NAME {DEFAULT_CLASS}=true",
        )  # fmt: skip
