"""What each overlay of deploy/ takes for granted: APIs, names and sizes. The names are the host platform's. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Overlay = Literal["gke-l4", "generic", "kind-cpu"]
OVERLAYS: tuple[Overlay, ...] = ("gke-l4", "generic", "kind-cpu")
PIPELINE, MODELS, GATEWAYS, ARGOCD = "mlops", "serving", "inference", "argocd"
QUEUE, CLUSTER_QUEUE, FLAVOR = "mlops-gpu", "gpu-cq", "gpu-any"
PRIORITIES = ("low-priority", "high-priority")
GATEWAY, MODEL_NAME_POLICY = "inference-gateway", "bbr"
EXTERNAL = ("liftlock-secrets", "liftlock-signing")  # secrets from the store
STORE, PROJECT = "secret-store", "platform"
DATABASE, VOLUMES = "liftlock-pg", ("liftlock-state", "liftlock-training")
ACCOUNTS = ("flow-run", "mlflow", "prefect-worker")
SERVERS = ("mlflow", "prefect-server", "prefect-worker")
APPLICATIONS = ("liftlock", "liftlock-models")
GPU, GPU_LABEL, L4 = "nvidia.com/gpu", "cloud.google.com/gke-accelerator", "nvidia-l4"
GOOGLE_ACCOUNT = "iam.gke.io/gcp-service-account"
PLACEHOLDER = "example"  # in every value of deploy/ that is yours to set
TRAINING = {"cpu": "3", "memory": "11Gi", GPU: "1"}  # what deploy/prefect/job-template.json asks for
SMALL = {"cpu": "2", "memory": "4Gi"}  # without a GPU, as docs/cluster.md sets it
OLDEST_MINOR = 30  # ValidatingAdmissionPolicy is stable from 1.30 on


@dataclass(frozen=True)
class Api:
    """A kind that is applied or read. `comes_with` is what to install, at the version that its schema was checked at."""

    group: str
    version: str
    plural: str
    comes_with: str

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/{self.version}"


_GATEWAY, _POOLS = "Gateway API 1.5.0, standard channel", "Gateway API Inference Extension 1.5.0"
_KUEUE, _ESO, _CNPG, _ARGO = "Kueue 0.18", "External Secrets 2.6", "CloudNativePG 1.29", "Argo CD 3"
EVERYWHERE = (
    *(
        Api("gateway.networking.k8s.io", "v1", plural, _GATEWAY)
        for plural in ("gatewayclasses", "gateways", "httproutes")
    ),
    Api("inference.networking.k8s.io", "v1", "inferencepools", _POOLS),
    Api("inference.networking.x-k8s.io", "v1alpha2", "inferencemodelrewrites", _POOLS),
    Api("serving.kserve.io", "v1beta1", "inferenceservices", "KServe 0.19, Standard mode"),
    Api("monitoring.coreos.com", "v1", "servicemonitors", "the Prometheus operator 0.91"),
    *(
        Api("kueue.x-k8s.io", "v1beta2", plural, _KUEUE)
        for plural in ("resourceflavors", "clusterqueues", "localqueues", "workloads", "workloadpriorityclasses")
    ),
    *(Api("postgresql.cnpg.io", "v1", plural, _CNPG) for plural in ("clusters", "databases")),
)
SECRETS = tuple(Api("external-secrets.io", "v1", plural, _ESO) for plural in ("externalsecrets", "clustersecretstores"))
GITOPS = tuple(Api("argoproj.io", "v1alpha1", plural, _ARGO) for plural in ("applications", "appprojects"))
AGENTGATEWAY = (Api("agentgateway.dev", "v1alpha1", "agentgatewaypolicies", "agentgateway 1.2"),)


@dataclass(frozen=True)
class Expected:
    """`idle_nodes`: a pool of GPU nodes that scales from zero is in order without a node."""

    overlay: Overlay
    gpu: bool
    idle_nodes: bool
    google: bool
    secret_store: bool
    argocd: bool
    apis: tuple[Api, ...]

    @property
    def training(self) -> dict[str, str]:
        """What the Job of a training asks for, by resource."""
        return TRAINING if self.gpu else SMALL


def expected(overlay: Overlay) -> Expected:
    if overlay == "gke-l4":
        return Expected(overlay, True, True, True, True, True, (*EVERYWHERE, *SECRETS, *GITOPS, *AGENTGATEWAY))
    if overlay == "generic":
        return Expected(overlay, True, False, False, True, False, (*EVERYWHERE, *SECRETS))
    return Expected(overlay, False, False, False, False, False, EVERYWHERE)
