"""The Kubernetes API by the official client: objects as plain dicts, kinds looked up at the server, errors as one sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from kubernetes.dynamic import DynamicClient

from serving.kube.connect import ClusterRefused, ClusterUnreachable, NoCluster, connect, told

FIELD_MANAGER = "liftlock"
CALL_SECONDS = 30
AGAIN_SECONDS = 0.5
BUSY = (429, 500, 502, 503, 504)
Object = dict[str, Any]
Answer = TypeVar("Answer")


@dataclass
class KubeApi:
    """`context` of the kubeconfig; None: its current one, or the pod's own account. `kubeconfig` None: where kubectl finds it.

    Raises NoCluster when it is first asked.
    """

    context: str | None = None
    kubeconfig: str | None = None
    _kinds: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)

    @cached_property
    def _client(self) -> DynamicClient:
        client = connect(self.context, self.kubeconfig)
        return DynamicClient(client, discoverer=_no_discovery)  # type: ignore[no-untyped-call]

    def call(self, method: str, path: str, body: Object | None = None, **options: Any) -> Object:
        """Raises ClusterRefused, ClusterUnreachable."""
        client = self._client
        with told(f"{method.upper()} {path}", client.configuration.host):
            answer = client.request(method, path, body, serialize=False, _request_timeout=CALL_SECONDS, **options)
        found: Object = json.loads(answer.data or b"{}")
        return found

    def path(self, api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
        """Of an object, or of all of them. Raises ClusterRefused where the server does not know the kind."""
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        plural, namespaced = self._kind(root, kind)
        middle = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{root}{middle}/{plural}{f'/{name}' if name else ''}"

    def path_of(self, wanted: Object) -> str:
        metadata = wanted["metadata"]
        return self.path(wanted["apiVersion"], wanted["kind"], metadata.get("namespace"), metadata["name"])

    def get(self, path: str) -> Object | None:
        """None where there is no such object."""
        try:
            return self.call("get", path)
        except ClusterRefused as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str, label_selector: str) -> list[Object]:
        found = self.call("get", self.path(api_version, kind, namespace), label_selector=label_selector)
        items: list[Object] = found["items"]
        return items

    def apply(self, wanted: Object, *, force: bool, dry_run: bool = False) -> Object:
        """Server-side apply as `liftlock`. Raises ClusterRefused with status 409 where another manager owns a field."""
        options = {"dry_run": "All"} if dry_run else {}
        return self.call(
            "patch", self.path_of(wanted), wanted, content_type="application/apply-patch+yaml",
            field_manager=FIELD_MANAGER, force_conflicts=str(force).lower(), **options,
        )  # fmt: skip

    def merge(self, path: str, change: Object) -> Object:
        """A JSON merge patch."""
        return self.call(
            "patch", path, change, content_type="application/merge-patch+json", field_manager=FIELD_MANAGER
        )

    def delete(self, path: str) -> None:
        """Dependents go with it. What is gone already is no error."""
        try:
            self.call("delete", path, propagation_policy="Background")
        except ClusterRefused as refused:
            if refused.status != 404:
                raise

    def _kind(self, root: str, kind: str) -> tuple[str, bool]:
        if (root, kind) not in self._kinds:
            listed = (self.get(root) or {}).get("resources") or ()
            known = {each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]}
            if kind not in known:
                raise ClusterRefused(f"the cluster does not know {kind} of {root}; install its CRD", 404)
            self._kinds[root, kind] = known[kind]
        return self._kinds[root, kind]


def _no_discovery(_client: object, _cache_file: object) -> None:
    """Discovery of the client reads every group and writes a cache into the temporary folder; kinds are looked up one by one here."""


def patiently(call: Callable[[], Answer], seconds: float) -> Answer:
    """Again while the API server restarts or is busy, at most so long; then what it raised last."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ClusterUnreachable as unreachable:
            if isinstance(unreachable, NoCluster) or time.monotonic() > deadline:
                raise
        except ClusterRefused as refused:
            if refused.status not in BUSY or time.monotonic() > deadline:
                raise
        time.sleep(AGAIN_SECONDS)
