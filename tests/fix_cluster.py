"""A whole Kubernetes control plane on loopback with real nodes' objects, and Argo CD where it is asked for.

etcd, API server, controller manager and scheduler are the real programs, found as fix_api_server.py says. kwok plays the
kubelets (tests/data/kwok_stages.yaml): scheduled pods become Running and Ready, and have loopback addresses, so a
test can bind a server to a pod's address. Annotations of a pod steer it: kube/ready-after, kube/never-ready.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fix_api_server import (
    SHARED,
    TOKEN,
    ApiServer,
    assets,
    find_program,
    running,
    running_api_server,
)  # fmt: skip
from tests.fix_envoy import free_ports
from tests.fix_waiting import await_that

NETWORKS = range(64, 251)  # 127.N.0.0/16 for the pods of one cluster
NOW = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}  # how a delete leaves no pod running on
OWNERS = (
    ("serving.kserve.io/v1beta1", "inferenceservices"), ("apps/v1", "deployments"), ("apps/v1", "replicasets"), ("batch/v1", "jobs"),
)  # fmt: skip
STAGES = Path(__file__).parent / "data" / "kwok_stages.yaml"
CPU_NODE = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"}
L4_NODE = {"cpu": "3920m", "memory": "13Gi", "ephemeral-storage": "47Gi", "pods": "110", "nvidia.com/gpu": "1"}
L4_LABELS = {"cloud.google.com/gke-accelerator": "nvidia-l4", "node.kubernetes.io/instance-type": "g2-standard-4"}
MODEL_FOLDERS = {"recurse": True, "include": "*.yaml", "exclude": "{*kustomization.yaml,*litellm-values.yaml}"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def definitions(folder: str) -> Path:
    """A folder of CustomResourceDefinitions, in LIFTLOCK_TEST_CRDS or `../shared/crds`; skips the test without it."""
    path = Path(os.environ.get("LIFTLOCK_TEST_CRDS", SHARED / "crds")) / folder
    if not path.is_dir():
        pytest.skip(f"{folder} is neither in LIFTLOCK_TEST_CRDS nor in ../shared/crds")
    return path


def wait_for_port(port: int) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await_that(listens, why=lambda: f"nothing listens on {port}")


@dataclass
class Cluster:
    """`kubeconfig` is an admin's. `api` asks as the admin too."""

    folder: Path
    api: ApiServer
    kubeconfig: Path
    stack: ExitStack

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
        """Until the session ends; its log lies beside."""
        log = self.folder / f"{Path(argv[0]).name}.log"
        program = [find_program(argv[0]), *argv[1:]]
        return self.stack.enter_context(running(program, log, {**os.environ, **environment}))

    def add_node(self, name: str, size: dict[str, str], *, l4: bool = False) -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        metadata = {"name": name, "labels": labels | (L4_LABELS if l4 else {})}
        spec = {"taints": [GPU_TAINT]} if l4 else {}
        self.api.apply(f"/api/v1/nodes/{name}", node | {"metadata": metadata, "spec": spec})
        status = {"capacity": size, "allocatable": size}
        self.api.apply(f"/api/v1/nodes/{name}/status", node | {"status": status})

    def add_l4(self, name: str) -> None:
        self.add_node(name, L4_NODE, l4=True)

    def get(self, path: str) -> dict[str, Any]:
        answer = self.api.client.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def remove_namespace(self, name: str) -> None:
        """Owners first, then pods at once. Waits until these are gone, so that their GPUs are free for the next test."""
        for version, kind in OWNERS:
            self.api.client.request("DELETE", f"/apis/{version}/namespaces/{name}/{kind}", json=NOW)
        pods = f"/api/v1/namespaces/{name}/pods"
        self.api.client.request("DELETE", pods, json=NOW)
        self.api.client.delete(f"/api/v1/namespaces/{name}")
        await_that(lambda: not self.get(pods)["items"], why=lambda: f"pods of {name} are still there")

    def define(self, folder: str) -> None:
        """Every CustomResourceDefinition of a folder of fix_api_server's, established."""
        for file in sorted(definitions(folder).glob("*.yaml")):
            text = file.read_text()
            name = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("  name: "))
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            answer = self.api.client.patch(
                path, params={"fieldManager": "test", "force": "true"}, content=text,
                headers={"content-type": "application/apply-patch+yaml"},
            )  # fmt: skip
            assert answer.status_code in (200, 201), answer.text
            self._await_established(path)

    def _await_established(self, path: str) -> None:
        def established() -> bool:
            conditions = (self.get(path).get("status") or {}).get("conditions") or ()
            return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

        await_that(established, why=lambda: f"{path} is not established")


@contextmanager
def running_cluster(folder: Path, nodes: int) -> Iterator[Cluster]:
    """`nodes` L4 nodes and one CPU node."""
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "openssl"):
        find_program(name)
    with ExitStack() as stack:
        flags = ("--authorization-mode=Node,RBAC", "--allow-privileged=true")
        server = stack.enter_context(running_api_server(folder, *flags))
        cluster = Cluster(folder, server, _kubeconfig(folder, str(server.client.base_url)), stack)
        _controllers(cluster)
        cluster.add_node("cpu-0", CPU_NODE)
        for number in range(nodes):
            cluster.add_l4(f"l4-{number}")
        yield cluster


def _kubeconfig(folder: Path, url: str) -> Path:
    path, authority = folder / "kubeconfig", folder / "certs" / "apiserver.crt"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "loopback",
        "clusters": [{"name": "loopback", "cluster": {
            "server": url.rstrip("/"), "certificate-authority": str(authority)}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "admin"}}],
    }))  # fmt: skip
    path.chmod(0o600)
    return path


def _controllers(cluster: Cluster) -> None:
    manager, scheduler, kwok = free_ports(3)
    flags = (f"--kubeconfig={cluster.kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false")
    cluster.start(
        "kube-controller-manager", *flags, f"--secure-port={manager}", "--use-service-account-credentials=true",
        f"--service-account-private-key-file={cluster.folder}/service-account.key",
        f"--root-ca-file={cluster.folder}/certs/apiserver.crt",
    )  # fmt: skip
    cluster.start("kube-scheduler", *flags, f"--secure-port={scheduler}")
    cluster.start(
        "kwok", f"--kubeconfig={cluster.kubeconfig}", f"--config={STAGES}", "--manage-all-nodes=true",
        f"--cidr=127.{_own_network(cluster.stack)}.0.1/16", "--node-lease-duration-seconds=40", f"--server-address=127.0.0.1:{kwok}",
        "--node-ip=127.0.0.1",
    )  # fmt: skip


def _own_network(stack: ExitStack) -> int:
    """One that no other cluster of this machine has: whose abstract socket is bound, until this cluster ends."""
    for number in random.sample(NETWORKS, len(NETWORKS)):
        held = stack.enter_context(socket.socket(socket.AF_UNIX))
        try:
            held.bind(f"\0liftlock-pods-127.{number}")
        except OSError:
            continue
        return number
    raise AssertionError(f"all {len(NETWORKS)} networks are taken")


def start_argocd(cluster: Cluster) -> None:
    """Application controller, repo server and redis; no page. Applications lie in the namespace argocd, project default."""
    for name in ("argocd-repo-server", "argocd-application-controller", "redis-server", "kustomize", "git"):
        find_program(name)
    cluster.define("argo-cd")
    _argocd_objects(cluster)
    home = cluster.folder / "argocd"
    for name in ("tls", "ssh", "tmp"):
        (home / name).mkdir(parents=True)
    (home / "ssh" / "ssh_known_hosts").touch()
    redis, repositories, *metrics = free_ports(4)
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig), "ARGOCD_FAKE_IN_CLUSTER": "true", "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_TLS_DATA_PATH": f"{home}/tls", "ARGOCD_SSH_DATA_PATH": f"{home}/ssh", "TMPDIR": f"{home}/tmp",  # noqa: S108
        "PATH": os.pathsep.join(filter(None, (assets(), os.environ["PATH"]))),
    }  # fmt: skip
    cluster.start("redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(home))
    wait_for_port(redis)
    cluster.start(
        "argocd-repo-server", "--address=127.0.0.1", f"--port={repositories}", "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics[0]}", "--disable-tls", "--revision-cache-expiration=1s", f"--redis=127.0.0.1:{redis}",
        **environment,
    )  # fmt: skip
    wait_for_port(repositories)
    cluster.start(
        "argocd-application-controller", "--namespace=argocd", f"--repo-server=127.0.0.1:{repositories}",
        "--repo-server-plaintext", f"--redis=127.0.0.1:{redis}", f"--metrics-port={metrics[1]}", "--app-resync=5",
        "--app-resync-jitter=0", **environment,
    )  # fmt: skip


def add_application(cluster: Cluster, url: str, folder: str, namespace: str, *, automated: bool = True) -> None:
    """Named as the namespace that it syncs into; the source is read as deploy/argocd has it."""
    policy = {"automated": {"prune": True, "selfHeal": True, "allowEmpty": True}} if automated else {}
    cluster.api.apply(f"/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/{namespace}", {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": namespace, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "path": folder, "targetRevision": "main", "directory": MODEL_FOLDERS},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
            "syncPolicy": {**policy, "syncOptions": ["ServerSideApply=true", "PruneLast=true"]},
        }})  # fmt: skip


def remove_application(cluster: Cluster, namespace: str) -> None:
    cluster.api.client.delete(f"/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/{namespace}")
    cluster.remove_namespace(namespace)


def _argocd_objects(cluster: Cluster) -> None:
    cluster.api.apply(
        "/api/v1/namespaces/argocd", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}}
    )
    named = {"namespace": "argocd", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    cluster.api.apply("/api/v1/namespaces/argocd/configmaps/argocd-cm", {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", **named},
        "data": {"timeout.reconciliation": "5s"}})  # fmt: skip
    cluster.api.apply("/api/v1/namespaces/argocd/secrets/argocd-secret", {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", **named},
        "stringData": {"server.secretkey": "only-for-tests"}})  # fmt: skip
    cluster.api.apply("/apis/argoproj.io/v1alpha1/namespaces/argocd/appprojects/default", {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "default", "namespace": "argocd"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
                 "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}})  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One a session, with the routes' and pools' definitions; a namespace a test."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), nodes=4) as made:
        for folder in ("gateway-api", "gateway-api-inference-extension", "prometheus-operator"):
            made.define(folder)
        yield made


@pytest.fixture(scope="session")
def argocd(cluster: Cluster) -> Cluster:
    start_argocd(cluster)
    return cluster
