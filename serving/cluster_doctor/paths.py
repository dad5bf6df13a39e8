"""Where each object is read: paths of the Kubernetes API. Pure."""

from __future__ import annotations

from serving.cluster_doctor.expected import (
    ACCOUNTS,
    APPLICATIONS,
    ARGOCD,
    CLUSTER_QUEUE,
    DATABASE,
    EXTERNAL,
    FLAVOR,
    GATEWAY,
    GATEWAYS,
    MODEL_NAME_POLICY,
    MODELS,
    PIPELINE,
    PRIORITIES,
    PROJECT,
    QUEUE,
    SERVERS,
    STORE,
    VOLUMES,
    Expected,
)

VERSION, NODES, STORAGE = "/version", "/api/v1/nodes", "/apis/storage.k8s.io/v1/storageclasses"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/validatingadmissionpolicies", f"{ADMISSION}/validatingadmissionpolicybindings"
CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
GATEWAY_PATH = f"/apis/gateway.networking.k8s.io/v1/namespaces/{GATEWAYS}/gateways/{GATEWAY}"
NAME_POLICY_PATH = f"/apis/agentgateway.dev/v1alpha1/namespaces/{GATEWAYS}/agentgatewaypolicies/{MODEL_NAME_POLICY}"
LOCAL_QUEUE = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{PIPELINE}/localqueues/{QUEUE}"
STORE_PATH = f"/apis/external-secrets.io/v1/clustersecretstores/{STORE}"
DATABASE_PATH = f"/apis/postgresql.cnpg.io/v1/namespaces/{PIPELINE}/clusters/{DATABASE}"
PROJECT_PATH = f"/apis/argoproj.io/v1alpha1/namespaces/{ARGOCD}/appprojects/{PROJECT}"


def namespace(name: str) -> str:
    return f"/api/v1/namespaces/{name}"


def core(plural: str, name: str, space: str = PIPELINE) -> str:
    return f"/api/v1/namespaces/{space}/{plural}/{name}"


def kueue(plural: str, name: str) -> str:
    return f"/apis/kueue.x-k8s.io/v1beta2/{plural}/{name}"


def deployment(name: str) -> str:
    return f"/apis/apps/v1/namespaces/{PIPELINE}/deployments/{name}"


def application(name: str) -> str:
    return f"/apis/argoproj.io/v1alpha1/namespaces/{ARGOCD}/applications/{name}"


def external_secret(name: str) -> str:
    return f"/apis/external-secrets.io/v1/namespaces/{PIPELINE}/externalsecrets/{name}"


def secrets() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """(namespace, name, keys)."""
    return (
        (PIPELINE, "liftlock-secrets", ("LIFTLOCK_API_KEY",)),
        (PIPELINE, "liftlock-signing", ("signing.key",)),
        (PIPELINE, f"{DATABASE}-app", ("username", "password")),
        (MODELS, "vllm-api-key", ("api-key",)),
    )


def paths(wanted: Expected) -> tuple[str, ...]:
    """All that is read. The group of each API is read too, to tell an old version from none."""
    return tuple(dict.fromkeys((
        VERSION, NODES, STORAGE, POLICIES, BINDINGS, CLASSES, GATEWAY_PATH, LOCAL_QUEUE, DATABASE_PATH,
        *(root for api in wanted.apis for root in (api.root, f"/apis/{api.group}")),
        *map(namespace, (PIPELINE, MODELS)),
        *(core(plural, PIPELINE) for plural in ("resourcequotas", "limitranges")),
        *(core("serviceaccounts", name) for name in ACCOUNTS),
        *(core("secrets", name, space) for space, name, _ in secrets()),
        *(core("persistentvolumeclaims", name) for name in VOLUMES), core("configmaps", "liftlock-settings"),
        *map(deployment, SERVERS),
        kueue("clusterqueues", CLUSTER_QUEUE), kueue("resourceflavors", FLAVOR),
        *(kueue("workloadpriorityclasses", name) for name in PRIORITIES),
        *((STORE_PATH, *map(external_secret, EXTERNAL)) if wanted.secret_store else ()),
        *((NAME_POLICY_PATH,) if wanted.google else ()),
        *((PROJECT_PATH, *map(application, APPLICATIONS)) if wanted.argocd else ()),
    )))  # fmt: skip
