"""Rendered objects on the tests' cluster: server-side apply with strict fields, and the pods that come of it."""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Desired
from serving.manifests.render import objects
from tests.fix_cluster import Cluster
from tests.fix_waiting import await_that

MANAGER = "liftlock"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
BASELINE = {"pod-security.kubernetes.io/enforce": "baseline"}
PLURALS = {
    "NetworkPolicy": "networkpolicies", "HTTPRoute": "httproutes", "InferencePool": "inferencepools",
}  # fmt: skip


def path_of(document: dict[str, Any]) -> str:
    """Of the object in the API."""
    version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    return f"{root}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def apply(cluster: Cluster, document: dict[str, Any]) -> dict[str, Any]:
    """What the server made of it; a field that it does not know, or a warning, fails the test."""
    answer = cluster.api.client.patch(
        path_of(document),
        params={"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"},
        headers={"content-type": "application/apply-patch+yaml"},
        json=document,
    )
    assert answer.status_code in (200, 201), f"{path_of(document)}: {answer.text}"
    assert "warning" not in answer.headers, f"{path_of(document)}: {answer.headers['warning']}"
    made: dict[str, Any] = answer.json()
    return made


def apply_all(cluster: Cluster, desired: Desired) -> dict[str, str]:
    """resourceVersion by path."""
    return {
        path_of(document): apply(cluster, document)["metadata"]["resourceVersion"]
        for documents in objects(desired).values()
        for document in documents
    }


def pods_of(cluster: Cluster, namespace: str, **labels: str) -> list[dict[str, Any]]:
    wanted = ",".join(f"{key}={value}" for key, value in labels.items())
    answer = cluster.api.client.get(f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": wanted})
    found: list[dict[str, Any]] = answer.json()["items"]
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def engines(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return pods_of(cluster, namespace, **{"app.kubernetes.io/component": "engine"})


def is_running(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") == "Running"


def await_running(cluster: Cluster, namespace: str, count: int) -> list[dict[str, Any]]:
    """All engines of the namespace, so many and all of them running."""

    def there() -> list[dict[str, Any]]:
        found = engines(cluster, namespace)
        return found if len(found) == count and all(map(is_running, found)) else []

    made: list[dict[str, Any]] = await_that(there)
    return made


def messages(cluster: Cluster, namespace: str) -> str:
    """Of the namespace's events."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    return "\n".join(str(each.get("message")) for each in found)
