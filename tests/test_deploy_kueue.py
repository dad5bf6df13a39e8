"""Trainings in Kueue's queue: the work pool's Job in the namespace of deploy/, by the real Kueue, scheduler and Job controller.

Pods are played (kwok), so no training runs here: what is seen is who runs when, on which node, and with which volume.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from tests.fix_cluster import Cluster
from tests.fix_deploy import Document
from tests.fix_queued import JOBS, PODS, until
from tests.test_deploy_prefect import job

pytestmark = pytest.mark.slow


def submit(cluster: Cluster, name: str, seconds: int, **values: Any) -> None:
    made: Document = copy.deepcopy(job(**values))
    made["metadata"] |= {"name": name, "namespace": "mlops"}
    del made["metadata"]["generateName"]
    made["spec"]["template"]["metadata"]["annotations"] = {"kube/runs-for": f"{seconds}s"}
    answer = cluster.api.client.post(JOBS, json=made)
    assert answer.status_code == 201, answer.text


def state(cluster: Cluster, name: str) -> Document:
    """suspended, active, succeeded; and its newest pod."""
    found = cluster.get(f"{JOBS}/{name}")
    pods = cluster.get(f"{PODS}?labelSelector=job-name={name}")["items"]
    running = [
        pod for pod in pods if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    return {
        "suspended": found["spec"].get("suspend", False), "succeeded": found["status"].get("succeeded", 0),
        "running": [pod["metadata"]["uid"] for pod in running], "pods": pods,
    }  # fmt: skip


def runs(found: Document) -> bool:
    return len(found["running"]) == 1


def waits(found: Document) -> bool:
    return bool(found["suspended"]) and not found["running"]


def done(found: Document) -> bool:
    return bool(found["succeeded"] == 1)


def on_the_l4_with_the_volume(found: Document) -> bool:
    (pod,) = [one for one in found["pods"] if one["metadata"]["uid"] in found["running"]]
    claims = [
        one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    ]
    return pod["spec"]["nodeName"] == "l4-0" and claims == ["liftlock-state"]


def clear(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.api.client.delete(f"{JOBS}/{name}", params={"propagationPolicy": "Background"})
    until(lambda: cluster.get(PODS), lambda found: not found["items"])


def test_two_trainings_and_one_l4_run_one_after_the_other(queued: Cluster) -> None:
    submit(queued, "first", 6)
    submit(queued, "second", 1)
    first = until(lambda: state(queued, "first"), runs)
    assert on_the_l4_with_the_volume(first)
    together = 0
    while not done(state(queued, "first")):
        second = state(queued, "second")
        together += len(second["running"]) and len(state(queued, "first")["running"])
        time.sleep(0.2)
    assert together == 0
    until(lambda: state(queued, "second"), done)
    clear(queued, "first", "second")


def test_a_high_priority_preempts_and_the_first_goes_on_with_its_volume(queued: Cluster) -> None:
    submit(queued, "nightly", 300)
    before = until(lambda: state(queued, "nightly"), runs)
    submit(queued, "urgent", 3, priority="high-priority")
    urgent = until(lambda: state(queued, "urgent"), runs)
    assert on_the_l4_with_the_volume(urgent)
    assert waits(state(queued, "nightly"))
    until(lambda: state(queued, "urgent"), done)
    after = until(lambda: state(queued, "nightly"), runs)
    assert after["running"] != before["running"]  # another pod, of the same Job
    assert on_the_l4_with_the_volume(after)  # so its checkpoints are there
    clear(queued, "nightly", "urgent")


def test_a_low_priority_waits_for_a_low_one(queued: Cluster) -> None:
    """Else the one above would prove nothing."""
    submit(queued, "running", 5)
    until(lambda: state(queued, "running"), runs)
    submit(queued, "later", 1)
    time.sleep(2)
    assert waits(state(queued, "later")) and runs(state(queued, "running"))
    until(lambda: state(queued, "later"), done)
    clear(queued, "running", "later")
