"""What an Argo CD Application says of a revision. Pure: the object in, a verdict with its reason out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Object = Mapping[str, Any]
Verdict = Literal["in_force", "waiting", "failed"]
ENDED_BADLY = ("Failed", "Error")
SHOWN = 5


@dataclass(frozen=True)
class Synced:
    """`ended` is when a failed sync ended, which tells one from the next."""

    verdict: Verdict
    reason: str
    ended: str = ""


def read(application: Object, holds: Callable[[str], bool], *, healthy: bool = True) -> Synced:
    """`holds` says whether a revision has the step in it: Argo CD may be further, where somebody else pushed since.

    A revision that was compared and is Synced and, where that is asked, Healthy is in force. A sync that ended badly has failed.
    """
    status: Object = application.get("status") or {}
    compared: Object = status.get("sync") or {}
    operation: Object = status.get("operationState") or {}
    tried = revision_tried(operation)
    if error := comparison_error(status):
        return Synced("waiting", error)
    if operation.get("phase") in ENDED_BADLY and tried and holds(tried):
        said = f"the sync ended {operation['phase']}: {operation.get('message', '')}{_resources(operation)}"
        return Synced("failed", said, str(operation.get("finishedAt", "")))
    if retries(operation) and holds(tried):
        return Synced("failed", f"{operation.get('message', '')}{_resources(operation)}", f"retry {retries(operation)}")
    seen = str(compared.get("revision") or "")
    if not seen or not holds(seen):
        return Synced("waiting", f"Argo CD has compared {seen[:12] or 'nothing'} so far")
    if operation.get("phase") == "Running":
        return Synced("waiting", f"syncing: {operation.get('message', '')}")
    if compared.get("status") != "Synced":
        return Synced("waiting", f"{compared.get('status')}: {_unsynced(status)}")
    health: Object = status.get("health") or {}
    if healthy and health.get("status") != "Healthy":
        return Synced("waiting", f"{health.get('status', 'health unknown')}{unhealthy(status)}")
    return Synced("in_force", f"{seen[:12]} is Synced")


def revision_tried(operation: Object) -> str:
    return str((operation.get("syncResult") or {}).get("revision") or "")


def retries(operation: Object) -> int:
    """How often a sync that still runs has failed so far."""
    return int(operation.get("retryCount") or 0) if operation.get("phase") == "Running" else 0


def is_automated(application: Object) -> bool:
    """Whether Argo CD syncs by itself. GPU applications of the host platform do not: somebody has to ask."""
    automated = ((application.get("spec") or {}).get("syncPolicy") or {}).get("automated")
    return automated is not None and automated.get("enabled", True) is not False


def comparison_error(status: Object) -> str:
    """Such as manifests that do not render, or a repository that does not answer."""
    found = [each for each in status.get("conditions") or () if str(each.get("type", "")).endswith("Error")]
    return "; ".join(f"{each['type']}: {each.get('message', '')}" for each in found)[:600]


def unhealthy(status: Object) -> str:
    """Where Argo CD is told to keep it (controller.resource.health.persist)."""
    named = [
        f"{each['kind']} {each['name']} is {each['health']['status']}{_message(each['health'])}"
        for each in status.get("resources") or ()
        if (each.get("health") or {}).get("status") not in (None, "Healthy")
    ]
    return "".join(f"; {said}" for said in named[:SHOWN])


def _unsynced(status: Object) -> str:
    named = [
        f"{each['kind']} {each['name']}{' waits to be pruned' if each.get('requiresPruning') else ' differs'}"
        for each in status.get("resources") or ()
        if each.get("status") not in (None, "Synced")
    ]
    return "; ".join(named[:SHOWN]) or "nothing is named"


def _resources(operation: Object) -> str:
    results = (operation.get("syncResult") or {}).get("resources") or ()
    bad = [
        f"{each['kind']} {each['name']}: {each.get('message', '')}"
        for each in results
        if each.get("status") == "SyncFailed"
    ]
    return "".join(f"; {said}" for said in bad[:SHOWN])


def _message(health: Object) -> str:
    return f" ({health['message']})" if health.get("message") else ""
