"""What a training's Job does right now, in one sentence, from the objects of Kueue, the Job controller and the scheduler. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.training_job import GPU, QUEUE_LABEL, Object


def condition(found: Object, kind: str) -> Object | None:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), None)


def holds(found: Object, kind: str) -> bool:
    return (condition(found, kind) or {}).get("status") == "True"


def suspended(job: Object) -> bool:
    return bool(job["spec"].get("suspend"))


def finished(job: Object) -> bool:
    return holds(job, "Complete") or holds(job, "Failed")


def in_queue(job: Object, workload: Object | None) -> str:
    queue = job["metadata"]["labels"][QUEUE_LABEL]
    if workload is None:
        return f"waits in queue {queue}; Kueue has made no Workload for it yet"
    evicted, reserved = condition(workload, "Evicted"), condition(workload, "QuotaReserved")
    preempted = holds(workload, "Evicted") and evicted is not None and evicted.get("reason") == "Preempted"
    why = (reserved or {}).get("message") or "no word from Kueue yet"
    before = "preempted; it will go on from its checkpoint, and " if preempted else ""
    return f"{before}waits in queue {queue}: {why}"


def admitted(pods: Sequence[Object], everybodys: Iterable[Object]) -> str:
    """`pods` are the Job's; `everybodys` may hold the card that it waits for."""
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if not alive:
        return "admitted; its pod comes next"
    pod = max(alive, key=lambda one: one["metadata"]["creationTimestamp"])
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return f"waits for a node: {scheduled.get('message', '')}{_held(pod, everybodys)}"
    where = f"pod {pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node yet')}"
    if pod["status"].get("phase") == "Running":
        return f"runs: {where}"
    waiting = [
        one["state"]["waiting"] for one in pod["status"].get("containerStatuses") or () if "waiting" in one["state"]
    ]
    why = "; ".join(f"{one.get('reason', '')} {one.get('message', '')}".strip() for one in waiting)
    return f"starts: {where}{f': {why}' if why else ''}"


def _held(pod: Object, everybodys: Iterable[Object]) -> str:
    if not _cards(pod):
        return ""
    others = sorted(
        f"{one['metadata']['namespace']}/{one['metadata']['name']} on {one['spec']['nodeName']}"
        for one in everybodys
        if one["spec"].get("nodeName") and _cards(one) and one["status"].get("phase") not in ("Succeeded", "Failed")
    )
    if not others:
        return ""
    return (
        f" {GPU} is held by {', '.join(others)}, outside of Kueue: scale it down, or the training starts when it ends"
    )


def _cards(pod: Object) -> bool:
    return any(GPU in ((one.get("resources") or {}).get("requests") or {}) for one in pod["spec"]["containers"])


def ending(job: Object, pods: Sequence[Object]) -> str:
    """Why it failed, where the training itself said nothing."""
    said = [(condition(job, "Failed") or {}).get("message") or "failed"]
    for pod in pods:
        for one in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = one["state"].get("terminated")
            if ended:
                said.append(
                    f"{pod['metadata']['name']}: {ended.get('reason', '')}, exit code {ended.get('exitCode', '?')}"
                )
    return "; ".join(said)
