"""A training as a Job in Kueue's queue, and what a cluster's quota says to it. Pure.

The pod has one volume at HOME: base models, checkpoints, and the work folder. Whatever ends a pod (Kueue's preemption, a drained
node), the next one goes on from the checkpoint there. Requests are the whole card's node: one training has it for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from serving.fit.quantity import parse_quantity

Object = dict[str, Any]
HOME, TMP = "/training", "/tmp"  # noqa: S108 - a volume of the pod's own
GPU = "nvidia.com/gpu"
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
COMPONENT, RUN, KEY = "app.kubernetes.io/component", "liftlock.dev/mlflow-run", "liftlock.dev/training-key"
PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
SETTINGS = "liftlock-settings"  # the ConfigMap of deploy/mlops, with MLflow's address
GRACE_SECONDS = 20
BEYOND_TRAINING_SECONDS = 3600
"""For fetching the base model and sending the adapter, beside training.timeout_seconds."""


@dataclass(frozen=True)
class Place:
    """Where trainings run: `claim` is the volume's, `gpu_label` the label of nodes that names their card."""

    image: str
    namespace: str
    queue: str
    claim: str
    gpu_label: str


@dataclass(frozen=True)
class Pod:
    """What one training asks for. `gpu` None: no card."""

    gpu: str | None
    cpu: str
    memory: str
    priority: str | None
    timeout_seconds: int

    @property
    def requests(self) -> dict[str, str]:
        return {"cpu": self.cpu, "memory": self.memory, **({GPU: "1"} if self.gpu else {})}


def job_name(model: str, key: str) -> str:
    """One for a model and what it is trained on, so that a second command finds the first one's Job."""
    return f"train-{model}-{key[:10]}"


def render_job(place: Place, pod: Pod, model: str, key: str, run: str, order_sha256: str) -> Object:
    """`run` is MLflow's, which holds the order that has this sha256."""
    labels = {
        "app.kubernetes.io/name": model, "app.kubernetes.io/part-of": "liftlock", COMPONENT: "training", QUEUE_LABEL: place.queue,
    }  # fmt: skip
    priority = {PRIORITY_LABEL: pod.priority} if pod.priority else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(model, key), "namespace": place.namespace, "labels": {**labels, **priority},
            "annotations": {KEY: key, RUN: run},
        },
        "spec": {
            "suspend": True,  # Kueue resumes it
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 86400,
            # A drained node or the scheduler's preemption is no failure of the training.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(place, pod, run, order_sha256)},
        },
    }  # fmt: skip


def _pod_spec(place: Place, pod: Pod, run: str, order_sha256: str) -> Object:
    on_gpu = {
        "nodeSelector": {place.gpu_label: pod.gpu},
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "activeDeadlineSeconds": pod.timeout_seconds + BEYOND_TRAINING_SECONDS,  # of this pod, not of the wait for it
        **(on_gpu if pod.gpu else {}),
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(place, pod, run, order_sha256)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
            {"name": "training", "persistentVolumeClaim": {"claimName": place.claim}},
        ],
    }  # fmt: skip


def _container(place: Place, pod: Pod, run: str, order_sha256: str) -> Object:
    limits = {name: size for name, size in pod.requests.items() if name != "cpu"}
    return {
        "name": "training",
        "image": place.image,
        "command": ["python", "-P", "-m", "tasks.train_in_pod", run, order_sha256],
        "envFrom": [{"configMapRef": {"name": SETTINGS}}],
        "env": [{"name": "LIFTLOCK_STATE", "value": HOME}, {"name": "LIFTLOCK_TOOLCHAIN", "value": HOME}],
        "resources": {"requests": pod.requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": TMP}, {"name": "training", "mountPath": HOME}],
    }  # fmt: skip


def too_small(pod: Pod, cluster_queue: Object, quotas: Iterable[Object], limits: Iterable[Object]) -> list[str]:
    """What never lets this pod run, however long it waits: one line each; empty where it only has to wait."""
    name = f"ClusterQueue {cluster_queue['metadata']['name']}"
    return [
        *_of_queue(name, pod.requests, cluster_queue["spec"]),
        *(line for quota in quotas for line in _of_quota(quota, pod.requests)),
        *(line for limit in limits for line in _of_limits(limit, pod.requests)),
    ]


def _of_queue(name: str, asked: Mapping[str, str], spec: Object) -> list[str]:
    """A group's resources must come from one flavor together."""
    groups, cohort = spec.get("resourceGroups") or (), bool(spec.get("cohortName"))
    covered = {resource for group in groups for resource in group["coveredResources"]}
    said = [f"{name} does not cover {resource}" for resource in asked if resource not in covered]
    for group in groups:
        wanted = {resource: size for resource, size in asked.items() if resource in group["coveredResources"]}
        short = [_short(flavor, wanted, cohort) for flavor in group["flavors"]]
        if short and all(short):
            said += [f"{name} gives {one}" for one in min(short, key=len)]
    return said


def _short(flavor: Object, wanted: Mapping[str, str], cohort: bool) -> list[str]:
    """What one flavor has too little of, borrowed from the cohort what may be."""
    given = {one["name"]: one for one in flavor["resources"]}
    return [
        f"{resource} {given[resource]['nominalQuota']} of flavor {flavor['name']}, the training asks for {size}"
        for resource, size in wanted.items()
        if parse_quantity(size) > parse_quantity(given[resource]["nominalQuota"]) + _borrowed(given[resource], cohort)
    ]


def _borrowed(resource: Object, cohort: bool) -> Decimal:
    """At most; without a limit of its own nothing bounds it here."""
    if not cohort:
        return Decimal(0)
    return parse_quantity(resource["borrowingLimit"]) if "borrowingLimit" in resource else Decimal("Infinity")


def _fits(size: str, most: str) -> bool:
    return parse_quantity(size) <= parse_quantity(most)


def _of_quota(quota: Object, asked: Mapping[str, str]) -> Iterable[str]:
    hard = quota["spec"].get("hard") or {}
    for resource, size in asked.items():
        for key in (f"requests.{resource}", resource):
            if key in hard and not _fits(size, hard[key]):
                yield f"ResourceQuota {quota['metadata']['name']} has {key} {hard[key]}, the training asks for {size}"


def _of_limits(limit: Object, asked: Mapping[str, str]) -> Iterable[str]:
    for item in limit["spec"]["limits"]:
        for resource, most in (item.get("max") or {}).items():
            if item["type"] in ("Container", "Pod") and resource in asked and not _fits(asked[resource], most):
                yield (
                    f"LimitRange {limit['metadata']['name']} lets a {item['type'].lower()} have {resource} {most}, "
                    f"the training asks for {asked[resource]}"
                )
