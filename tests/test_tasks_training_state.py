"""What a training's Job is said to do, by the conditions that Kueue, the Job controller and the scheduler write."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.training_job import Object
from tasks.training_state import admitted, ending, finished, in_queue
from tests.test_tasks_training_job import job


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def with_conditions(found: Object, *conditions: Object) -> Object:
    return {**found, "status": {"conditions": list(conditions)}}


UNUSED = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor gpu-any, 1 more needed"
PENDING = condition("QuotaReserved", "False", "Pending", UNUSED)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (None, "waits in queue mlops-gpu; Kueue has made no Workload for it yet"),
        ({}, "waits in queue mlops-gpu: no word from Kueue yet"),
        (with_conditions({}, PENDING), f"waits in queue mlops-gpu: {UNUSED}"),
        (with_conditions({}, PENDING, condition("Evicted", "True", "Preempted")),
         f"preempted; it will go on from its checkpoint, and waits in queue mlops-gpu: {UNUSED}"),
        (with_conditions({}, PENDING, condition("Evicted", "False", "Preempted")), f"waits in queue mlops-gpu: {UNUSED}"),
    ],
)  # fmt: skip
def test_in_the_queue_it_waits_for_what_kueue_says(workload: Object | None, said: str) -> None:
    assert in_queue(job(), workload) == said


def pod(
    name: str, *conditions: Object, node: str = "", space: str = "mlops", gpu: bool = True, **status: Any
) -> Object:
    requests = {"nvidia.com/gpu": "1"} if gpu else {"cpu": "1"}
    spec = {"containers": [{"resources": {"requests": requests}}], **({"nodeName": node} if node else {})}
    metadata = {"name": name, "namespace": space, "creationTimestamp": "2026-11-29T06:00:00Z"}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": list(conditions), **status}}


FULL = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu"
UNSCHEDULED = condition("PodScheduled", "False", "Unschedulable", FULL)
HELD = " nvidia.com/gpu is held by serving/engine on l4-0, outside of Kueue: scale it down, or the training starts when it ends"


@pytest.mark.parametrize(
    ("others", "more"),
    [
        ([pod("engine", node="l4-0", space="serving", phase="Running")], HELD),
        ([pod("engine", node="l4-0", space="serving", phase="Succeeded")], ""),
        ([pod("page", node="cpu-0", space="rag", gpu=False, phase="Running")], ""),
        ([pod("other", space="serving", phase="Pending")], ""),
    ],
    ids=["a served model", "one that ended", "without a card", "one that waits too"],
)
def test_who_holds_the_card_is_named(others: list[Object], more: str) -> None:
    own = pod("train", UNSCHEDULED, phase="Pending")
    assert admitted([own], [own, *others]) == f"waits for a node: {FULL}{more}"


def test_an_admitted_pod_comes_starts_and_runs() -> None:
    leaving = pod("old", node="l4-0", phase="Running")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-29T06:00:00Z"
    assert admitted([leaving], []) == "admitted; its pod comes next"
    scheduled = condition("PodScheduled", "True")
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    starting = pod("train", scheduled, node="l4-0", phase="Pending", containerStatuses=[{"state": waiting}])
    assert admitted([starting], []) == "starts: pod train on l4-0: ImagePullBackOff no such image"
    assert admitted([pod("train", scheduled, node="l4-0", phase="Running")], []) == "runs: pod train on l4-0"


def test_a_container_that_said_nothing_is_told_by_its_end() -> None:
    failed = with_conditions(job(), condition("Failed", "True", "BackoffLimitExceeded", "Job has reached the limit"))
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    ended = pod("train", node="l4-0", phase="Failed", containerStatuses=[{"state": killed}])
    assert finished(failed) and not finished(job())
    assert ending(failed, [ended]) == "Job has reached the limit; train: OOMKilled, exit code 137"
