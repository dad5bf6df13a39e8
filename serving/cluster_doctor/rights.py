"""What the account of a flow must be allowed, which is what deploy/ gives it. Values, and one check. Pure.

tests/test_serving_cluster_doctor_rights.py compares this table with the Roles of every overlay, verb by verb.
"""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import (
    APPLICATIONS,
    ARGOCD,
    DATABASE,
    EXTERNAL,
    GATEWAY,
    MODEL_NAME_POLICY,
    MODELS,
    PIPELINE,
    PROJECT,
    Expected,
)
from serving.cluster_doctor.model import Cluster, Finding, Right

APPLY = ("create", "get", "patch", "delete")
# (group, resources) that a release applies in the namespace of the models
APPLIED = (
    ("apps", ("deployments",)),
    ("", ("services", "configmaps", "serviceaccounts")),
    ("policy", ("poddisruptionbudgets",)),
    ("networking.k8s.io", ("networkpolicies",)),
    ("gateway.networking.k8s.io", ("httproutes",)),
    ("serving.kserve.io", ("inferenceservices", "llminferenceservices")),
    ("monitoring.coreos.com", ("servicemonitors",)),
    ("rbac.authorization.k8s.io", ("roles", "rolebindings")),
)
# (group, resources) that are applied there too, and that an endpoint picker watches
WATCHED = (
    ("inference.networking.k8s.io", ("inferencepools",)),
    ("inference.networking.x-k8s.io", ("inferenceobjectives", "inferencemodelrewrites")),
)
# (group, resources) that are listed on the whole cluster
LISTED = (
    ("", ("nodes", "pods")),
    ("admissionregistration.k8s.io", ("validatingadmissionpolicies", "validatingadmissionpolicybindings")),
    ("storage.k8s.io", ("storageclasses",)),
    ("gateway.networking.k8s.io", ("gatewayclasses",)),
)
QUEUES = ("clusterqueues", "resourceflavors", "workloadpriorityclasses")
PIPELINE_CORE = ("resourcequotas", "limitranges", "persistentvolumeclaims", "serviceaccounts", "configmaps")


def rights(wanted: Expected) -> tuple[Right, ...]:
    return (*_models(), *_pipeline(wanted), *_cluster(wanted), *(_argocd() if wanted.argocd else ()))


def _models() -> Iterator[Right]:
    for group, resources in APPLIED:
        yield from (Right(verb, group, one, MODELS) for one in resources for verb in APPLY)
    for group, resources in WATCHED:
        yield from (Right(verb, group, one, MODELS) for one in resources for verb in (*APPLY, "list", "watch"))
    yield from (Right(verb, "", "pods", MODELS) for verb in ("get", "watch"))
    yield from (Right("list", "", one, MODELS) for one in ("resourcequotas", "limitranges"))
    yield Right("get", "", "secrets", MODELS, "vllm-api-key")


def _pipeline(wanted: Expected) -> Iterator[Right]:
    yield from (Right("get", "", one, PIPELINE) for one in PIPELINE_CORE)
    yield from (Right("get", "", "secrets", PIPELINE, name) for name in (*EXTERNAL, f"{DATABASE}-app"))
    yield Right("get", "apps", "deployments", PIPELINE)
    yield Right("get", "postgresql.cnpg.io", "clusters", PIPELINE)
    yield Right("get", "kueue.x-k8s.io", "localqueues", PIPELINE)
    yield Right("list", "kueue.x-k8s.io", "workloads", PIPELINE)
    yield from (Right(verb, "batch", "jobs", PIPELINE) for verb in ("create", "get", "delete"))
    yield from (Right("list", "", one, PIPELINE) for one in ("resourcequotas", "limitranges"))
    if wanted.secret_store:
        yield Right("get", "external-secrets.io", "externalsecrets", PIPELINE)


def _cluster(wanted: Expected) -> Iterator[Right]:
    yield from (Right("get", "", "namespaces", "", name) for name in (PIPELINE, MODELS))
    yield from (Right("list", group, one) for group, resources in LISTED for one in resources)
    yield from (Right("get", "kueue.x-k8s.io", one) for one in QUEUES)
    yield Right("get", "gateway.networking.k8s.io", "gateways", "", GATEWAY)
    if wanted.secret_store:
        yield Right("get", "external-secrets.io", "clustersecretstores")
    if wanted.google:
        yield Right("get", "agentgateway.dev", "agentgatewaypolicies", "", MODEL_NAME_POLICY)


def _argocd() -> Iterator[Right]:
    yield from (Right("get", "argoproj.io", "applications", ARGOCD, name) for name in APPLICATIONS)
    yield Right("patch", "argoproj.io", "applications", ARGOCD, APPLICATIONS[-1])
    yield Right("get", "argoproj.io", "appprojects", ARGOCD, PROJECT)


def check_rights(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    for right in rights(wanted):
        if not cluster.allowed.get(right, False):
            yield Finding(
                "right", str(right), f"{cluster.user} may not", "allowed",
                f"kubectl apply -k deploy/overlays/{wanted.overlay}, whose Roles have it",
            )  # fmt: skip
