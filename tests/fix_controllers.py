"""KServe's and Kueue's own controllers with their webhooks on the tests' cluster, as the platform sets them."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fix_api_server import find_program
from tests.fix_cluster import Cluster, wait_for_port
from tests.fix_envoy import free_ports

KUEUE_METRICS = Path("/etc/kueue/metrics/certs")  # a path fixed in Kueue's main
SMALL = {"cpuRequest": "100m", "cpuLimit": "1", "memoryRequest": "100Mi", "memoryLimit": "1Gi"}
KSERVE: dict[str, Any] = {  # Standard mode, Gateway API, modelcars on
    "deploy": {"defaultDeploymentMode": "Standard"},
    "ingress": {
        "enableGatewayApi": True, "kserveIngressGateway": "kserve/kserve-ingress-gateway",
        "ingressGateway": "kserve/kserve-ingress-gateway", "ingressDomain": "example.com", "urlScheme": "http",
        "disableIstioVirtualHost": True, "domainTemplate": "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
    },
    "storageInitializer": {
        "image": "kserve/storage-initializer:v0.19.0", "enableModelcar": True, "cpuModelcar": "10m",
        "memoryModelcar": "15Mi", "uidModelcar": 1010, **SMALL,
    },
    "inferenceService": {"resource": {"cpuLimit": "1", "memoryLimit": "2Gi", "cpuRequest": "1", "memoryRequest": "2Gi"}},
    "credentials": {"storageSpecSecretName": "storage-config", "gcs": {}, "s3": {}},
    "security": {"autoMountServiceAccountToken": True}, "explainers": {},
    "localModel": {"enabled": False, "jobNamespace": "kserve-localmodel-jobs"},
    "metricsAggregator": {"enableMetricAggregation": "false", "enablePrometheusScraping": "false"},
    **{name: {"image": f"kserve/{name}:v0.19.0", **SMALL} for name in ("agent", "logger", "batcher", "router")},
}  # fmt: skip


def start_kserve(cluster: Cluster) -> None:
    """The InferenceService controller, and the webhook that puts modelcars into pods."""
    find_program("kserve")
    for folder in ("kserve", "gateway-api"):
        cluster.define(folder)
    _namespace(cluster, "kserve")
    config = {"name": "inferenceservice-config", "namespace": "kserve"}
    cluster.api.apply(f"/api/v1/namespaces/kserve/configmaps/{config['name']}", {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": config,
        "data": {key: json.dumps(value) for key, value in KSERVE.items()}})  # fmt: skip
    home = cluster.folder / "kserve"
    authority = certificate(home / "k8s-webhook-server" / "serving-certs", "kserve")
    webhooks, metrics, health = free_ports(3)
    cluster.start(
        "kserve", f"-kubeconfig={cluster.kubeconfig}", f"-webhook-port={webhooks}", f"-metrics-addr=127.0.0.1:{metrics}",
        f"-health-probe-addr=127.0.0.1:{health}", TMPDIR=str(home), POD_NAMESPACE="kserve",
    )  # fmt: skip
    wait_for_port(webhooks)
    services = rule("serving.kserve.io", "v1beta1", "inferenceservices", "CREATE", "UPDATE")
    theirs = {"matchExpressions": [{"key": "serving.kserve.io/inferenceservice", "operator": "Exists"}]}
    _register(cluster, "kserve", webhooks, authority, [
        ("/mutate-serving-kserve-io-v1beta1-inferenceservice", services, {}),
        ("/validate-serving-kserve-io-v1beta1-inferenceservice", services, {}),
        ("/mutate-pods", rule("", "v1", "pods", "CREATE"), {"objectSelector": theirs}),
    ])  # fmt: skip


def start_kueue(cluster: Cluster) -> None:
    """The manager with the integration of Jobs; skips the test where it cannot write the folder that Kueue insists on."""
    find_program("kueue")
    cluster.define("kueue")
    home = cluster.folder / "kueue"
    authority = certificate(home, "kueue")
    try:
        KUEUE_METRICS.mkdir(parents=True, exist_ok=True)
        for name in ("tls.crt", "tls.key"):
            (KUEUE_METRICS / name).write_bytes((home / name).read_bytes())
    except OSError as error:
        pytest.skip(f"Kueue reads certificates in {KUEUE_METRICS}: {error}")
    webhooks, metrics, health = free_ports(3)
    config = home / "config.json"
    config.write_text(json.dumps({
        "apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"}, "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "webhook": {"host": "127.0.0.1", "port": webhooks, "certDir": str(home)},
        "leaderElection": {"leaderElect": False}, "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
    }))  # fmt: skip
    _namespace(cluster, "kueue-system")
    cluster.start(
        "kueue", f"--config={config}", "--feature-gates=VisibilityOnDemand=false", KUBECONFIG=str(cluster.kubeconfig),
        POD_NAMESPACE="kueue-system",
    )  # fmt: skip
    wait_for_port(webhooks)
    group = "kueue.x-k8s.io"
    hooks: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("/mutate-batch-v1-job", rule("batch", "v1", "jobs", "CREATE"), {}),
        ("/validate-batch-v1-job", rule("batch", "v1", "jobs", "CREATE", "UPDATE"), {}),
    ]
    for kind in ("clusterqueue", "resourceflavor", "workload"):
        path = f"-kueue-x-k8s-io-v1beta2-{kind}"
        hooks.append((f"/mutate{path}", rule(group, "v1beta2", f"{kind}s", "CREATE"), {}))
        hooks.append((f"/validate{path}", rule(group, "v1beta2", f"{kind}s", "CREATE", "UPDATE"), {}))
    _register(cluster, "kueue", webhooks, authority, hooks)


def certificate(folder: Path, name: str) -> str:
    """A self-signed tls.crt and tls.key for loopback; the certificate in base64."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [find_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return base64.b64encode((folder / "tls.crt").read_bytes()).decode()


def rule(group: str, version: str, resource: str, *operations: str) -> dict[str, Any]:
    return {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": list(operations)}


def _register(
    cluster: Cluster, name: str, port: int, authority: str, hooks: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """By loopback address; whether a path mutates or validates is in its first word."""
    for kind, verb in (("MutatingWebhookConfiguration", "/mutate"), ("ValidatingWebhookConfiguration", "/validate")):
        listed = [
            {
                "name": f"{path.strip('/')}.{name}.loopback", "sideEffects": "None", "failurePolicy": "Fail",
                "admissionReviewVersions": ["v1", "v1beta1"], "rules": [asked], **more,
                "clientConfig": {"url": f"https://127.0.0.1:{port}{path}", "caBundle": authority},
            }
            for path, asked, more in hooks
            if path.startswith(verb)
        ]  # fmt: skip
        document = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
        cluster.api.apply(
            f"/apis/admissionregistration.k8s.io/v1/{kind.lower()}s/{name}", {**document, "webhooks": listed}
        )


def _namespace(cluster: Cluster, name: str) -> None:
    cluster.api.apply(
        f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )


@pytest.fixture(scope="session")
def kserve(cluster: Cluster) -> Cluster:
    start_kserve(cluster)
    return cluster


@pytest.fixture(scope="session")
def kueue(cluster: Cluster) -> Cluster:
    start_kueue(cluster)
    return cluster
