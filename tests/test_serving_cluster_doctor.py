"""`liftlock doctor --cluster` on a real API server: each thing taken away or broken is named, and nothing else is.

It runs with a token of the service account flow-run under the Roles of deploy/, so a right that they lack is found here too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from serving.cluster_doctor.examine import Examined, examine
from serving.cluster_doctor.expected import Overlay, expected
from serving.cluster_doctor.model import Answer, Cluster
from serving.cluster_doctor.paths import VERSION
from serving.cluster_doctor.read import read_cluster
from tests.fix_complete_cluster import FLOW, CompleteCluster, condition

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
WANTED = expected("gke-l4")
Named = set[tuple[str, str]]


@pytest.fixture(scope="module")
def flow(complete_cluster: CompleteCluster) -> client.ApiClient:
    file = complete_cluster.kubeconfig(complete_cluster.account_token())
    made: client.ApiClient = config.new_client_from_config(config_file=str(file))
    return made


def named(api: client.ApiClient) -> Examined:
    return examine(read_cluster(api, WANTED), WANTED)


def pairs(examined: Examined) -> Named:
    return {(one.check, one.where) for one in examined.findings}


@dataclass(frozen=True)
class Breakage:
    """What is done, to which object, and what must be said of it."""

    do: Callable[[CompleteCluster, str, str], None]
    kind: str
    name: str
    check: str
    where: str
    observed: str = ""


def gone(kind: str, name: str, check: str, where: str | None = None) -> Breakage:
    return Breakage(lambda cluster, *at: cluster.remove(*at), kind, name, check, where or f"mlops/{name}", "not there")


def unsettled(kind: str, name: str, on: str, check: str, where: str) -> Breakage:
    return Breakage(lambda cluster, *at: cluster.unsettle(*at, on), kind, name, check, where, f"{on} is False: Broken")


def changed(
    kind: str, name: str, change: dict[str, Any], check: str, where: str, observed: str, sub: str = ""
) -> Breakage:
    return Breakage(lambda cluster, *at: cluster.change(*at, change, sub), kind, name, check, where, observed)


def only(kind: str, name: str, fields: dict[str, Any], check: str, where: str, observed: str) -> Breakage:
    """A change of spec."""
    return changed(kind, name, {"spec": fields}, check, where, observed)


GPU = "nvidia.com/gpu"
NODE = {"cpu": "3920m", "memory": "13Gi", GPU: "1"}


def listener(chosen: str) -> dict[str, Any]:
    return {
        "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": chosen}}}
        ]
    }


def quota(**values: str) -> dict[str, Any]:
    return {"hard": {f"requests.{name}": value for name, value in values.items()}}


def nominal(*sizes: tuple[str, str]) -> dict[str, Any]:
    resources = [{"name": name, "nominalQuota": size} for name, size in sizes]
    return {
        "resourceGroups": [
            {"coveredResources": [name for name, _ in sizes], "flavors": [{"name": "gpu-any", "resources": resources}]}
        ]
    }


BREAKAGES: dict[str, Breakage] = {
    "label-kueue": changed("Namespace", "mlops", {"metadata": {"labels": {"llm-platform/kueue-managed": None}}},
                           "namespace-label", "mlops", "llm-platform/kueue-managed is absent"),
    "label-pod-security": changed("Namespace", "mlops", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
                                  "namespace-label", "mlops", "pod-security.kubernetes.io/enforce is baseline"),
    "quota": gone("ResourceQuota", "mlops", "quota", "mlops/mlops"),
    "quota-without-gpu": only("ResourceQuota", "mlops", {"hard": {f"requests.{GPU}": "0"}}, "quota-too-small", "mlops/mlops", f"requests.{GPU} is 0"),
    "quota-too-small": only("ResourceQuota", "mlops", quota(memory="8Gi"), "quota-too-small", "mlops/mlops", "requests.memory is 8Gi"),
    "limits": gone("LimitRange", "mlops", "limits", "mlops/mlops"),
    "account": gone("ServiceAccount", "mlflow", "service-account"),
    "account-unbound": changed("ServiceAccount", "mlflow", {"metadata": {"annotations": None}}, "workload-identity", "mlops/mlflow", "absent"),
    "account-placeholder": changed(
        "ServiceAccount", "flow-run", {"metadata": {"annotations": {"iam.gke.io/gcp-service-account": "x@example-project.iam"}}},
        "workload-identity", "mlops/flow-run", "x@example-project.iam"),
    "queue": gone("LocalQueue", "mlops-gpu", "local-queue"),
    "queue-stopped": only("LocalQueue", "mlops-gpu", {"stopPolicy": "Hold"}, "local-queue", "mlops/mlops-gpu", "stopPolicy Hold"),
    "queue-inactive": unsettled("LocalQueue", "mlops-gpu", "Active", "local-queue", "mlops/mlops-gpu"),
    "cluster-queue": gone("ClusterQueue", "gpu-cq", "cluster-queue", "gpu-cq"),
    "cluster-queue-stopped": only("ClusterQueue", "gpu-cq", {"stopPolicy": "HoldAndDrain"}, "cluster-queue", "gpu-cq", "stopPolicy HoldAndDrain"),
    "cluster-queue-inactive": unsettled("ClusterQueue", "gpu-cq", "Active", "cluster-queue", "gpu-cq"),
    "cluster-queue-without-gpu": only("ClusterQueue", "gpu-cq", nominal(("cpu", "8"), ("memory", "32Gi")),
                                      "cluster-queue-quota", "gpu-cq", f"{GPU} is not covered"),
    "cluster-queue-too-small": only("ClusterQueue", "gpu-cq", nominal(("cpu", "2"), ("memory", "32Gi"), (GPU, "1")),
                                    "cluster-queue-quota", "gpu-cq", "cpu is 2"),
    "cluster-queue-without-preemption": only("ClusterQueue", "gpu-cq", {"preemption": {"withinClusterQueue": "Never"}},
                                             "cluster-queue-preemption", "gpu-cq", "withinClusterQueue is Never"),
    "flavor": gone("ResourceFlavor", "gpu-any", "resource-flavor", "gpu-any"),
    "flavor-without-toleration": only("ResourceFlavor", "gpu-any", {"tolerations": None}, "resource-flavor", "gpu-any", "tolerates no taint"),
    "priority-class": gone("WorkloadPriorityClass", "high-priority", "priority-class", "high-priority"),
    "secret-store": gone("ClusterSecretStore", "secret-store", "secret-store", "secret-store"),
    "secret-store-broken": unsettled("ClusterSecretStore", "secret-store", "Ready", "secret-store", "secret-store"),
    "external-secret": gone("ExternalSecret", "liftlock-secrets", "external-secret"),
    "external-secret-unsynced": unsettled("ExternalSecret", "liftlock-secrets", "Ready", "external-secret", "mlops/liftlock-secrets"),
    "secret": gone("Secret", "vllm-api-key", "secret", "serving/vllm-api-key"),
    "secret-without-key": changed("Secret", "liftlock-signing", {"data": {"signing.key": None}},
                                  "secret-key", "mlops/liftlock-signing", "signing.key"),
    "secret-empty": changed("Secret", "vllm-api-key", {"data": {"api-key": ""}}, "secret-key", "serving/vllm-api-key", "api-key"),
    "database-secret": gone("Secret", "liftlock-pg-app", "secret"),
    "settings": gone("ConfigMap", "liftlock-settings", "settings"),
    "setting-unset": changed("ConfigMap", "liftlock-settings", {"data": {"LIFTLOCK_REGISTRY": "https://registry.example.com"}},
                             "setting-unset", "mlops/liftlock-settings", "LIFTLOCK_REGISTRY is https://registry.example.com"),
    "volume-lost": changed("PersistentVolumeClaim", "liftlock-state", {"status": {"phase": "Lost"}},
                           "volume", "mlops/liftlock-state", "Lost", "/status"),
    "training-volume-lost": changed("PersistentVolumeClaim", "liftlock-training", {"status": {"phase": "Lost"}},
                                    "volume", "mlops/liftlock-training", "Lost", "/status"),
    "database": gone("Cluster", "liftlock-pg", "database"),
    "database-down": unsettled("Cluster", "liftlock-pg", "Ready", "database", "mlops/liftlock-pg"),
    "server": gone("Deployment", "prefect-worker", "deployment"),
    "server-down": unsettled("Deployment", "mlflow", "Available", "deployment", "mlops/mlflow"),
    "server-scaled-down": only("Deployment", "prefect-server", {"replicas": 0}, "deployment", "mlops/prefect-server", "0 replicas"),
    "image-by-tag": only("Deployment", "mlflow", {"template": {"spec": {"containers": [{"name": "mlflow", "image": "acme.dev/flows:1"}]}}},
                         "image", "mlops/mlflow", "acme.dev/flows:1"),
    "gateway": gone("Gateway", "inference-gateway", "gateway", "inference/inference-gateway"),
    "gateway-unprogrammed": unsettled("Gateway", "inference-gateway", "Programmed", "gateway", "inference/inference-gateway"),
    "gateway-for-itself": only("Gateway", "inference-gateway", listener("Same"), "gateway-routes", "inference/inference-gateway", "no listener"),
    "gateway-class": gone("GatewayClass", "agentgateway", "gateway-class", "agentgateway"),
    "gateway-class-refused": unsettled("GatewayClass", "agentgateway", "Accepted", "gateway-class", "agentgateway"),
    "model-name-policy": gone("AgentgatewayPolicy", "bbr", "model-name-policy", "inference/bbr"),
    "model-name-policy-unattached": changed(
        "AgentgatewayPolicy", "bbr", {"status": {"ancestors": [{
            "ancestorRef": {"name": "inference-gateway"}, "controllerName": "agentgateway.dev/agentgateway",
            "conditions": [condition("Accepted"), condition("Attached", "False")]}]}},
        "model-name-policy", "inference/bbr", "not Attached", "/status"),
    "no-gpu-node": replace(gone("Node", "l4-0", "gpu-node", "cloud.google.com/gke-accelerator=nvidia-l4"), observed="no node has this label"),
    "node-not-ready": unsettled("Node", "l4-0", "Ready", "gpu-node", "l4-0"),
    "node-cordoned": only("Node", "l4-0", {"unschedulable": True}, "gpu-node", "l4-0", "cordoned"),
    "node-without-driver": changed("Node", "l4-0", {"status": {"allocatable": {GPU: None}}}, "gpu-node", "l4-0", f"offers no {GPU}", "/status"),
    "node-too-small": changed("Node", "l4-0", {"status": {"allocatable": {"memory": "6Gi"}}}, "gpu-node-size", "l4-0", "memory is 6Gi", "/status"),
    "node-tainted": only("Node", "l4-0", {"taints": [{"key": "team", "effect": "NoSchedule"}]}, "gpu-node", "l4-0", "taint team:NoSchedule"),
    "storage-class": changed("StorageClass", "standard-rwo", {"metadata": {"annotations": None}}, "storage-class", "default", "standard-rwo"),
    "project": gone("AppProject", "platform", "project", "argocd/platform"),
    "project-rows": only("AppProject", "platform", {"sourceRepos": ["https://git.acme.dev/platform.git"]},
                         "project-rows", "argocd/platform", "https://git.acme.dev/liftlock.git"),
    "application": gone("Application", "liftlock-models", "application", "argocd/liftlock-models"),
    "application-out-of-sync": changed("Application", "liftlock", {"status": {"sync": {"status": "OutOfSync"}}},
                                       "application", "argocd/liftlock", "OutOfSync"),
    "application-degraded": changed("Application", "liftlock", {"status": {"health": {"status": "Degraded"}}},
                                    "application", "argocd/liftlock", "Degraded"),
    "application-error": changed(
        "Application", "liftlock-models", {"status": {"conditions": [{"type": "ComparisonError", "message": "no such path"}]}},
        "application", "argocd/liftlock-models", "ComparisonError: no such path"),
    "policy-asked-for": changed("Namespace", "serving", {"metadata": {"labels": {"liftlock.dev/gpu-fit": "required"}}},
                                "policy", "liftlock-gpu-fit", "not there"),
}  # fmt: skip
# A pool that scales from zero is in order without a node, and a queue without preemption only makes one wait.
NOTES = {"no-gpu-node", "cluster-queue-without-preemption"}


def test_the_complete_cluster_raises_no_alarm(complete_cluster: CompleteCluster, flow: client.ApiClient) -> None:
    examined = named(flow)
    assert examined.findings == () and examined.unseen == ()
    assert examined.looked_at > 140
    assert read_cluster(flow, WANTED).user == FLOW


@pytest.mark.parametrize("overlay", ["generic", "kind-cpu"])
def test_the_smaller_overlays_ask_for_no_more(
    complete_cluster: CompleteCluster, flow: client.ApiClient, overlay: Overlay
) -> None:
    wanted = expected(overlay)
    assert examine(read_cluster(flow, wanted), wanted).findings == ()


def test_at_least_25_things_are_broken_here() -> None:
    assert len(BREAKAGES) >= 25
    assert len({(one.check, one.where, one.observed) for one in BREAKAGES.values()}) == len(BREAKAGES)


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_taken_away_or_broken_is_named_and_nothing_else(
    complete_cluster: CompleteCluster, flow: client.ApiClient, name: str
) -> None:
    one = BREAKAGES[name]
    one.do(complete_cluster, one.kind, one.name)
    try:
        examined = named(flow)
    finally:
        complete_cluster.again(one.kind, one.name)
    assert pairs(examined) == {(one.check, one.where)}
    (finding,) = examined.findings
    assert one.observed in finding.observed and finding.required and finding.fix
    assert bool(examined.missing) is (name not in NOTES)


def test_everything_was_put_back(flow: client.ApiClient) -> None:
    """So that no breakage above was hidden by the one before it."""
    assert named(flow).findings == ()


@pytest.mark.parametrize(
    ("file", "kind", "check"),
    [
        ("gateway-api-inference-extension/inferencepools.yaml", "inferencepools.inference.networking.k8s.io", "api"),
        ("prometheus-operator/servicemonitors.yaml", "servicemonitors.monitoring.coreos.com", "api"),
        ("external-secrets/externalsecrets.yaml", "externalsecrets.external-secrets.io", "api"),
        ("gateway-api/httproutes.yaml", "httproutes.gateway.networking.k8s.io", "api"),
    ],
)
def test_a_kind_that_is_not_served_is_named_once(
    complete_cluster: CompleteCluster, flow: client.ApiClient, file: str, kind: str, check: str
) -> None:
    """Objects of the kind are not missed beside it."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind}"
    assert complete_cluster.client.delete(path).status_code == 200
    try:
        complete_cluster.wait_until_unserved(kind)
        found = pairs(named(flow))
    finally:
        complete_cluster.objects.define(file)
        for (one, name), _ in complete_cluster.kinds.items():
            if one == "ExternalSecret" and kind.startswith("externalsecrets"):
                complete_cluster.again(one, name)
    assert found == {(check, kind)}


def test_an_old_version_is_told_from_no_version(complete_cluster: CompleteCluster, flow: client.ApiClient) -> None:
    """The Kueue of the platform before the last serves v1beta1 alone."""
    read = read_cluster(flow, WANTED)
    root = "/apis/kueue.x-k8s.io/v1beta2"
    old = {"versions": [{"version": "v1beta1", "groupVersion": "kueue.x-k8s.io/v1beta1"}]}
    answers = {**read.answers, root: Answer(404), "/apis/kueue.x-k8s.io": Answer(200, old)}
    answers |= {path: Answer(404) for path in read.answers if path.startswith(f"{root}/")}
    examined = examine(replace(read, answers=answers), WANTED)
    assert {one.check for one in examined.findings} == {"api-version"}
    assert {one.observed for one in examined.findings} == {"the group in v1beta1 alone"}
    assert len(examined.findings) == len([one for one in WANTED.apis if one.group == "kueue.x-k8s.io"])


def test_an_old_kubernetes_is_named(complete_cluster: CompleteCluster, flow: client.ApiClient) -> None:
    read = read_cluster(flow, WANTED)
    answers = {**read.answers, VERSION: Answer(200, {"minor": "29+", "gitVersion": "v1.29.1-gke.1"})}
    found = examine(Cluster(answers, read.allowed, read.user), WANTED)
    assert pairs(found) == {("kubernetes-version", "API server")}


def test_a_namespace_that_is_not_there_is_named_once(complete_cluster: CompleteCluster, flow: client.ApiClient) -> None:
    """Not its queue, its quota, its secrets and all the rest."""
    admin = config.new_client_from_config(config_file=str(complete_cluster.kubeconfig("only-for-tests")))
    read = read_cluster(admin, WANTED)
    answers = {path: Answer(404) if "/namespaces/mlops" in path else answer for path, answer in read.answers.items()}
    examined = examine(replace(read, answers=answers), WANTED)
    assert pairs(examined) == {("namespace", "mlops")}
    assert "quota" in examined.unseen and "secrets" in examined.unseen


def run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(file), "COLUMNS": "200"}
    command = [ROOT / ".venv" / "bin" / "liftlock", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_a_table_or_a_document(complete_cluster: CompleteCluster) -> None:
    file = complete_cluster.kubeconfig("only-for-tests")
    done = run(file, "--cluster", "--as", FLOW, "--json")
    assert (done.returncode, json.loads(done.stdout)["complete"], done.stderr) == (0, True, "")
    complete_cluster.remove("LimitRange", "mlops")
    try:
        told, document = run(file, "--cluster", "--as", FLOW), run(file, "--cluster", "--json")
    finally:
        complete_cluster.again("LimitRange", "mlops")
    assert told.returncode == document.returncode == 3
    assert "kubectl apply --server-side -k deploy/overlays/gke-l4" in told.stdout and f"as {FLOW}" in told.stdout
    (finding,) = json.loads(document.stdout)["findings"]
    assert (finding["check"], finding["object"], finding["level"]) == ("limits", "mlops/mlops", "missing")


@pytest.mark.parametrize("arguments", [(), ("--cluster",), ("--cluster", "--context", "none")])
def test_nothing_to_examine_is_bad_input(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path / "no-kubeconfig", *arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_or_know_us_is_bad_input(
    complete_cluster: CompleteCluster, tmp_path: Path
) -> None:
    unknown = run(complete_cluster.kubeconfig("nobody-knows-this-token"), "--cluster")
    assert unknown.returncode == 2 and "401" in unknown.stderr
    made = json.loads(complete_cluster.kubeconfig("only-for-tests").read_text())
    made["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(made))
    silent = run(file, "--cluster")
    assert silent.returncode == 2 and "127.0.0.1:9" in silent.stderr and "Traceback" not in silent.stderr
