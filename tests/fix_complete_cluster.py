"""A complete cluster for `liftlock doctor`: a real API server with the platform's kinds, deploy/overlays/gke-l4 applied with values
of one's own, what the platform has besides it, and the statuses that its controllers would write. No controller runs.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.fix_api_server import ApiServer, running_api_server
from tests.fix_deploy import DEFINITIONS, DEPLOY, Document, Objects, rendered
from tests.fix_waiting import PATIENCE_SECONDS

DOCTOR_DEFINITIONS = (
    *DEFINITIONS, "gateway-api/gatewayclasses.yaml", "gateway-api/gateways.yaml", "gateway-api/httproutes.yaml",
    "gateway-api-inference-extension/inferencepools.yaml", "gateway-api-inference-extension/inferencemodelrewrites.yaml",
    "kserve/inferenceservices.yaml", "prometheus-operator/servicemonitors.yaml", "kueue/workloads.yaml",
    "agentgateway/agentgatewaypolicies.yaml",
)  # fmt: skip
FLOW = "system:serviceaccount:mlops:flow-run"
IMAGE = f"us-central1-docker.pkg.dev/acme/liftlock/flows@sha256:{'a' * 64}"
Answer = TypeVar("Answer")
SETTLED = "2026-11-28T00:00:00Z"


def condition(kind: str, status: str = "True", reason: str = "Settled") -> Document:
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": SETTLED}


def conditions(*kinds: str) -> Document:
    return {"conditions": [condition(kind) for kind in kinds]}


def thing(api: str, kind: str, name: str, space: str | None = None, **fields: Any) -> Document:
    metadata = {"name": name, **({"namespace": space} if space else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def own_values(folder: Path) -> Path:
    """The overlay as a user sets it: an image by digest, and no `example` left."""
    shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns("rag", "policies"))
    overlay = folder / "deploy" / "overlays" / "gke-l4"
    for path in overlay.glob("*.yaml"):
        text = path.read_text().replace("git.example.com", "git.acme.dev")
        path.write_text(text.replace("example-", "acme-"))
    file = overlay / "kustomization.yaml"
    image, _, digest = IMAGE.partition("@")
    lines = [line for line in file.read_text().splitlines() if "digest-not-set" not in line]
    file.write_text(
        "\n".join(
            [*lines, f"  - {{ name: registry.example.com/liftlock/flows, newName: {image}, digest: '{digest}' }}", ""]
        )
    )
    return overlay


def platform() -> list[tuple[Document, Document | None]]:
    """(object, its status) of what is on the host platform, as host-side manifests have them."""
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "inference-gateway"}
    phase = {"phase": "PreRouting", "transformation": {"request": {"set": [{"name": "x", "value": "'y'"}]}}}
    flavor = {"name": "gpu-any", "resources": [
        {"name": "cpu", "nominalQuota": "8"}, {"name": "memory", "nominalQuota": "32Gi"}, {"name": "nvidia.com/gpu", "nominalQuota": "1"},
    ]}  # fmt: skip
    queue = {"namespaceSelector": {}, "queueingStrategy": "BestEffortFIFO", "stopPolicy": "None",
        "preemption": {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any", "borrowWithinCohort": {"policy": "Never"}},
             "resourceGroups": [{"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": [flavor]}]}  # fmt: skip
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    size = {"cpu": "3920m", "memory": "13Gi", "nvidia.com/gpu": "1", "pods": "110"}
    node = thing(
        "v1", "Node", "l4-0", spec={"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}
    )
    node["metadata"]["labels"] = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    default = thing("storage.k8s.io/v1", "StorageClass", "standard-rwo", provisioner="pd.csi.storage.gke.io")
    default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    store = {"provider": {"gcpsm": {"projectID": "acme"}}}
    repositories = ["https://git.acme.dev/liftlock.git", "https://git.acme.dev/platform.git"]
    ancestor = {
        "ancestorRef": target,
        "controllerName": "agentgateway.dev/agentgateway",
        **conditions("Accepted", "Attached"),
    }
    kueue = "kueue.x-k8s.io/v1beta2"
    gateway = "gateway.networking.k8s.io/v1"
    return [
        (thing(kueue, "ResourceFlavor", "gpu-any", spec={"tolerations": [toleration]}), None),
        (thing(kueue, "ClusterQueue", "gpu-cq", spec=queue), conditions("Active")),
        (thing(kueue, "WorkloadPriorityClass", "low-priority", value=100), None),
        (thing(kueue, "WorkloadPriorityClass", "high-priority", value=1000), None),
        (thing("external-secrets.io/v1", "ClusterSecretStore", "secret-store", spec=store), conditions("Ready")),
        (thing(gateway, "GatewayClass", "agentgateway", spec={"controllerName": "agentgateway.dev/agentgateway"}), conditions("Accepted")),
        (thing(gateway, "Gateway", "inference-gateway", "inference", spec={"gatewayClassName": "agentgateway", "listeners": [listener]}),
         conditions("Accepted", "Programmed")),
        (thing("agentgateway.dev/v1alpha1", "AgentgatewayPolicy", "bbr", "inference", spec={"targetRefs": [target], "traffic": phase}),
         {"ancestors": [ancestor]}),
        (thing("argoproj.io/v1alpha1", "AppProject", "platform", "argocd", spec={"sourceRepos": repositories}), None),
        (node, {"allocatable": size, "capacity": size, **conditions("Ready")}),
        (default, None),
        (secret("serving", "vllm-api-key", "api-key"), None),
        (secret("mlops", "liftlock-secrets", "LIFTLOCK_API_KEY", "LIFTLOCK_PLATFORM_TOKEN"), None),
        (secret("mlops", "liftlock-signing", "signing.key"), None),
        (secret("mlops", "liftlock-pg-app", "username", "password"), None),
    ]  # fmt: skip


def secret(space: str, name: str, *keys: str) -> Document:
    return thing("v1", "Secret", name, space, data={key: base64.b64encode(b"value").decode() for key in keys})


# What controllers say of the overlay's own objects.
STATUSES: dict[tuple[str, str], Document] = {
    ("LocalQueue", "mlops-gpu"): conditions("Active"),
    **{("ExternalSecret", name): conditions("Ready") for name in ("liftlock-secrets", "liftlock-signing")},
    ("Cluster", "liftlock-pg"): conditions("Ready"),
    **{
        ("Deployment", name): {"observedGeneration": 1, **conditions("Available")}
        for name in ("mlflow", "prefect-server", "prefect-worker")
    },
}


class CompleteCluster:
    """Everything is in place until a test takes it away; `again` puts it back."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server, self.folder, self.objects = server, folder, Objects(server)
        self.client = server.client
        self.objects.define(*DOCTOR_DEFINITIONS)
        overlay = own_values(folder)
        self.wanted = [
            (one, STATUSES.get((one["kind"], one["metadata"]["name"])))
            for one in [*rendered(overlay), *rendered(DEPLOY / "state")]
        ]
        spaces = [(thing("v1", "Namespace", name), None) for name in ("serving", "argocd", "inference")]
        self.wanted = [*spaces, *self.wanted, *platform()]
        self.kinds: dict[tuple[str, str], tuple[Document, Document | None]] = {}
        self.kinds.update({(one["kind"], one["metadata"]["name"]): (one, status) for one, status in self.wanted})
        for one, status in self.wanted:
            self._put(one, status)
        synced = {"sync": {"status": "Synced"}, "health": {"status": "Healthy"}}  # no status subresource in its schema
        self.kinds["Application", "liftlock"][0]["status"] = synced
        self.objects.put(self.kinds["Application", "liftlock"][0])
        self.stored = {key: self._kept(one) for key, (one, _) in self.kinds.items()}

    def _kept(self, document: Document) -> Document:
        found: Document = self.client.get(self.objects.path(document)).json()
        found["metadata"] = {
            key: value
            for key, value in found["metadata"].items()
            if key not in ("resourceVersion", "uid", "managedFields")
        }
        return found

    def _put(self, document: Document, status: Document | None) -> None:
        self.objects.put(document)
        if status is not None:
            self.objects.status(document, status)

    def path(self, kind: str, name: str) -> str:
        return self.objects.path(self.kinds[kind, name][0])

    def remove(self, kind: str, name: str) -> None:
        answer = self.client.delete(self.path(kind, name))
        assert answer.status_code in (200, 202), answer.text

    def change(self, kind: str, name: str, change: Document, sub: str = "") -> None:
        """A JSON merge patch."""
        self.change_at(f"{self.path(kind, name)}{sub}", change)

    def unsettle(self, kind: str, name: str, condition_type: str) -> None:
        """Its controller says no."""
        broken = {"conditions": [condition(condition_type, "False", "Broken")]}
        self.change(kind, name, {"status": broken}, "/status")

    def again(self, kind: str, name: str) -> None:
        """As it was when the cluster was complete."""
        document, status = self.kinds[kind, name]
        path, kept = self.path(kind, name), self.stored[kind, name]
        if self.client.get(path).status_code != 200:
            self._put(document, status)
            return
        for place in (path, f"{path}/status") if "status" in kept else (path,):
            version = self.client.get(path).json()["metadata"]["resourceVersion"]
            answer = self.client.put(place, json={**kept, "metadata": {**kept["metadata"], "resourceVersion": version}})
            assert answer.status_code in (200, 404), answer.text  # 404: its schema has no status of its own

    def replace_rules(self, role: Document) -> None:
        """Of a Role that exists."""
        self.change_at(self.objects.path(role), {"rules": role["rules"]})

    def change_at(self, path: str, change: Document) -> None:
        answer = self.client.patch(path, headers={"content-type": "application/merge-patch+json"}, json=change)
        assert answer.status_code == 200, answer.text

    def wait_until_unserved(self, kind: str) -> None:
        plural, _, group = kind.partition(".")

        def served() -> bool:
            listed = self.client.get(f"/apis/{group}/v1")
            return listed.status_code == 200 and any(
                one["name"] == plural for one in listed.json().get("resources") or ()
            )

        self.until(served, lambda still: not still)

    def until(self, ask: Callable[[], Answer], wanted: Callable[[Answer], bool]) -> Answer:
        """The API server sees a change of rights or kinds a moment after it was stored."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted(answer := ask()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return answer

    def kubeconfig(self, token: str) -> Path:
        certificate = base64.b64encode(self.server.authority.read_bytes()).decode()
        cluster = {"server": str(self.client.base_url), "certificate-authority-data": certificate}
        made = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        file = self.folder / f"kubeconfig-{len(token)}.json"
        file.write_text(json.dumps(made))
        return file

    def account_token(self, space: str = "mlops", name: str = "flow-run") -> str:
        """As a pod gets it: a token of the service account, made by the API."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = self.client.post(f"/api/v1/namespaces/{space}/serviceaccounts/{name}/token", json=request)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["status"]["token"])


@pytest.fixture(scope="module")
def complete_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompleteCluster]:
    folder = tmp_path_factory.mktemp("complete")
    with running_api_server(folder) as server:
        yield CompleteCluster(server, folder)
