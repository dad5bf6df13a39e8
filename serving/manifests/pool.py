"""The InferencePool of a member with its endpoint picker (Gateway API Inference Extension 1.5). Pure.

One picker a pool. It reads pods, its pool, and what rewrites and prioritises models in its namespace, and nothing else.
"""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Desired, Member
from serving.manifests.naming import PORTS, metadata, selector
from serving.manifests.pod import RESTRICTED, USER

GRPC, HEALTH, METRICS = 9002, 9003, 9090
READ = ["get", "list", "watch"]
# The chart's 4 CPU and 8 GiB never schedule on a node of four CPUs.
# A quota on limits refuses a pod without them.
RESOURCES = {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}


def pool(desired: Desired, member: Member) -> tuple[dict[str, Any], ...]:
    """The pool, and the picker's account, rights, Deployment and Service."""
    name = desired.name_of(member)
    picker = picker_name(name)
    return (
        {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": metadata(desired, name, "pool"),
            "spec": {
                "selector": {"matchLabels": selector(name)},
                "targetPorts": [{"number": PORTS[desired.form]}],
                # Without the picker a request would go to a pod that may be busy or cold; an error is retried by the client.
                "endpointPickerRef": {"name": picker, "port": {"number": GRPC}, "failureMode": "FailClose"},
            },
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(desired, picker)},
        *_rights(desired, picker),
        _deployment(desired, name, picker),
        _service(desired, picker),
    )


def picker_name(name: str) -> str:
    return f"{name}-epp"


def _metadata(desired: Desired, picker: str) -> dict[str, Any]:
    return metadata(desired, picker, "endpoint-picker")


def _rights(desired: Desired, picker: str) -> tuple[dict[str, Any], dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": READ},
        {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": READ},
        {
            "apiGroups": ["inference.networking.x-k8s.io"],
            "resources": ["inferenceobjectives", "inferencemodelrewrites"],
            "verbs": READ,
        },
    ]
    kind = {"apiVersion": f"{group}/v1"}
    return (
        {**kind, "kind": "Role", "metadata": _metadata(desired, picker), "rules": rules},
        {
            **kind,
            "kind": "RoleBinding",
            "metadata": _metadata(desired, picker),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": picker},
            "subjects": [{"kind": "ServiceAccount", "name": picker, "namespace": desired.namespace}],
        },
    )


def arguments(desired: Desired, name: str) -> list[str]:
    """Its metrics answer without a token: who reads them is decided by the NetworkPolicy."""
    return [
        f"--pool-name={name}",
        f"--pool-namespace={desired.namespace}",
        "--pool-group=inference.networking.k8s.io",
        f"--grpc-port={GRPC}",
        f"--grpc-health-port={HEALTH}",
        f"--metrics-port={METRICS}",
        "--metrics-endpoint-auth=false",
        "--enable-pprof=false",
        "--tracing=false",
    ]


def _deployment(desired: Desired, name: str, picker: str) -> dict[str, Any]:
    probe = {"grpc": {"port": HEALTH, "service": "inference-extension"}, "periodSeconds": 10}
    container = {
        "name": "epp",
        "image": desired.platform.picker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments(desired, name),
        "ports": [
            {"name": "grpc", "containerPort": GRPC, "protocol": "TCP"},
            {"name": "grpc-health", "containerPort": HEALTH, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS, "protocol": "TCP"},
        ],
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "initialDelaySeconds": 5},
        "resources": RESOURCES,
        "securityContext": RESTRICTED,
    }
    made = _metadata(desired, picker)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": made,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector(picker)},
            "template": {
                "metadata": {"labels": made["labels"]},
                "spec": {
                    "serviceAccountName": picker,
                    "terminationGracePeriodSeconds": 130,  # streams run through it; the chart's own value
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def _service(desired: Desired, picker: str) -> dict[str, Any]:
    ports = [
        {"name": "grpc", "port": GRPC, "protocol": "TCP", "targetPort": GRPC, "appProtocol": "http2"},
        {"name": "metrics", "port": METRICS, "protocol": "TCP", "targetPort": METRICS},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(desired, picker),
        "spec": {"type": "ClusterIP", "selector": selector(picker), "ports": ports},
    }
