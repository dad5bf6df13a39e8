"""What stands around a model: warm-up files, who may reach its pods, how they are measured and disrupted. Pure."""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Desired, Member
from serving.manifests.naming import COMPONENT, EVALUATION, PORTS, labels, metadata, selector
from serving.manifests.pool import GRPC, METRICS, picker_name

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
MONITORING = "monitoring"
SCRAPE = "15s"


def warmup(desired: Desired) -> dict[str, Any]:
    """The readiness probe's script and its prompts; the key comes from the Secret."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(desired, f"{desired.model}-warmup", "warmup", of=desired.model),
        "data": {"ready.sh": desired.warmup.script, **desired.warmup.prompts},
    }


def network(desired: Desired, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the engines and of their pickers, by the members' names."""
    port = PORTS[desired.form]
    evaluation = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: desired.platform.evaluation_namespace}},
        "podSelector": {"matchLabels": {COMPONENT: EVALUATION}},
    }
    pickers = {"podSelector": _any_of(tuple(picker_name(name) for name in names))}
    trusted = [_namespace(each) for each in desired.platform.trusted_namespaces]
    engines = {
        "podSelector": _any_of(names),
        # The model is in the pod: an engine calls nobody, so no egress is listed. An empty list would be dropped by the
        # server and be a difference for ever.
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [*trusted, pickers, evaluation], "ports": [_port(port)]}],
    }
    gateway = [_namespace(desired.platform.gateway_namespace)]
    picking = {
        "podSelector": _any_of(tuple(picker_name(name) for name in names)),
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": gateway, "ports": [_port(GRPC)]},
            {"from": [_namespace(MONITORING)], "ports": [_port(METRICS)]},
        ],
    }
    return _policy(desired, "engine", engines), _policy(desired, "endpoint-picker", picking)


def monitoring(desired: Desired, member: Member) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Service that only Prometheus uses (requests go through the pool) and its ServiceMonitor."""
    member_name = desired.name_of(member)
    name = f"{member_name}-engine"
    made = metadata(desired, name, "metrics", of=member_name)
    pods = {**selector(member_name), COMPONENT: "engine"}
    port = PORTS[desired.form]
    service = {
        "clusterIP": "None",
        "selector": pods,
        "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": port}],
    }
    monitor = {
        "selector": {"matchLabels": {**selector(member_name), COMPONENT: "metrics"}},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": SCRAPE}],
    }
    found = {**made, "labels": {**made["labels"], "release": "observability"}}  # what Prometheus' operator selects
    return (
        {"apiVersion": "v1", "kind": "Service", "metadata": made, "spec": service},
        {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": found, "spec": monitor},
    )


def disruption(desired: Desired, member: Member) -> tuple[dict[str, Any], ...]:
    """A budget for several replicas; for one it would only keep the node from being drained."""
    if member.replicas < 2:
        return ()
    name = desired.name_of(member)
    pods = {**selector(name), COMPONENT: "engine"}
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": pods}}
    made = metadata(desired, name, "engine")
    return ({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": made, "spec": spec},)


def _policy(desired: Desired, component: str, spec: dict[str, Any]) -> dict[str, Any]:
    made = {
        "name": f"{desired.model}-{component}",
        "namespace": desired.namespace,
        "labels": labels(desired, desired.model, "network"),
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": made, "spec": spec}


def _any_of(names: tuple[str, ...]) -> dict[str, Any]:
    expression = {"key": "app.kubernetes.io/name", "operator": "In", "values": list(names)}
    return {"matchExpressions": [expression]}


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}


def _port(number: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": number}
