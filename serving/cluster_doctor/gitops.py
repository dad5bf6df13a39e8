"""Argo CD: the project's rows and the Applications. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import APPLICATIONS, ARGOCD, PLACEHOLDER, PROJECT, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object
from serving.cluster_doctor.namespaces import absent, apply
from serving.cluster_doctor.paths import PROJECT_PATH, application


def check_project(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    if not wanted.argocd:
        return
    project = cluster.get(PROJECT_PATH)
    if project is None:
        yield absent("project", f"{ARGOCD}/{PROJECT}", "sync the platform's clusters/ai-dev/projects/platform.yaml")
        return
    allowed = project["spec"].get("sourceRepos") or ()
    for name in APPLICATIONS:
        found = cluster.get(application(name))
        source = str(found["spec"]["source"]["repoURL"]) if found else ""
        if found and "*" not in allowed and source not in allowed:
            yield Finding(
                "project-rows", f"{ARGOCD}/{PROJECT}", f"sourceRepos lacks {source}", f"the source of {name}",
                "add the row: deploy/argocd/project",
            )  # fmt: skip


def check_applications(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    if not wanted.argocd:
        return
    for name in APPLICATIONS:
        found = cluster.get(application(name))
        if found is None:
            yield absent("application", f"{ARGOCD}/{name}", apply(wanted))
        else:
            yield from _application(found, name)


def _application(found: Object, name: str) -> Iterator[Finding]:
    """The models' is synced by hand, so before the first release it is in order without a sync."""
    where, status = f"{ARGOCD}/{name}", found.get("status") or {}
    source, synced = str(found["spec"]["source"]["repoURL"]), (status.get("sync") or {}).get("status", "Unknown")
    by_hand = "automated" not in (found["spec"].get("syncPolicy") or {})
    errors = "; ".join(
        f"{one['type']}: {one['message']}" for one in status.get("conditions") or () if "Error" in one["type"]
    )
    if PLACEHOLDER in source:
        yield Finding(
            "application-source", where, source, "a repository of yours", "set it in deploy/overlays/gke-l4/yours.yaml"
        )
    elif errors:
        yield Finding("application", where, errors, "no error", f"argocd app get {name}")
    elif synced != "Synced" and not by_hand:
        yield Finding("application", where, synced, "Synced", f"argocd app get {name}, then argocd app sync {name}")
    elif (status.get("health") or {}).get("status", "Unknown") in ("Degraded", "Missing") and not by_hand:
        yield Finding("application", where, str(status["health"]["status"]), "Healthy", f"argocd app get {name}")
