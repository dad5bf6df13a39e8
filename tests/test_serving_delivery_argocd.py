"""What an Application says, in the words that Argo CD 3 writes. The objects are shortened from what it wrote in a test."""

from __future__ import annotations

from typing import Any

import pytest

from serving.delivery.argocd import Synced, is_automated, read, retries

STEP, LATER, EARLIER = "b" * 40, "c" * 40, "a" * 40
MESSAGE = "one or more objects failed to apply"


def holds(revision: str) -> bool:
    return revision in (STEP, LATER)


def application(
    revision: str = STEP, sync: str = "Synced", health: str = "Healthy", **operation: Any
) -> dict[str, Any]:
    state = {"operationState": operation} if operation else {}
    return {"status": {"sync": {"revision": revision, "status": sync}, "health": {"status": health}, **state}}


def ended(phase: str, revision: str = STEP, **more: Any) -> dict[str, Any]:
    return {
        "phase": phase,
        "message": MESSAGE,
        "syncResult": {"revision": revision},
        "finishedAt": "2026-11-28T12:00:00Z",
        **more,
    }


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (application(), "in_force"),
        (application(LATER), "in_force"),  # somebody else pushed since
        (application(EARLIER), "waiting"),
        (application(health="Progressing"), "waiting"),
        (application(health="Missing"), "waiting"),
        (application(sync="OutOfSync"), "waiting"),
        (application(**ended("Running")), "waiting"),
        (application(**ended("Succeeded")), "in_force"),
        (application(sync="OutOfSync", **ended("Failed")), "failed"),
        (application(sync="OutOfSync", **ended("Error")), "failed"),
        (application(sync="OutOfSync", **ended("Failed", EARLIER)), "waiting"),  # the step before
        (application(sync="OutOfSync", **ended("Running", retryCount=1)), "failed"),
        (application(sync="OutOfSync", **ended("Running", EARLIER, retryCount=1)), "waiting"),
        ({}, "waiting"),
        ({"status": {"conditions": [{"type": "ComparisonError", "message": "app path does not exist"}]}}, "waiting"),
    ],
)
def test_a_step_is_in_force_when_its_revision_or_a_later_one_is_synced_and_healthy(said: Any, verdict: str) -> None:
    assert read(said, holds).verdict == verdict


def test_an_undo_needs_no_health() -> None:
    assert read(application(health="Degraded"), holds, healthy=False).verdict == "in_force"
    assert read(application(EARLIER, health="Degraded"), holds, healthy=False).verdict == "waiting"


def test_a_failed_sync_names_the_objects_and_two_failures_can_be_told_apart() -> None:
    bad = {"kind": "Deployment", "name": "x", "status": "SyncFailed", "message": "exceeded quota"}
    said = ended("Failed", syncResult={"revision": STEP, "resources": [bad]})
    assert read(application(sync="OutOfSync", **said), holds) == Synced(
        "failed", f"the sync ended Failed: {MESSAGE}; Deployment x: exceeded quota", "2026-11-28T12:00:00Z"
    )


def test_a_comparison_error_is_the_reason() -> None:
    said = {"status": {"conditions": [{"type": "ComparisonError", "message": "app path does not exist"}]}}
    assert "app path does not exist" in read(said, holds).reason


def test_resources_that_wait_to_be_pruned_are_named() -> None:
    said = application(sync="OutOfSync")
    said["status"]["resources"] = [
        {"kind": "InferencePool", "name": "old", "status": "OutOfSync", "requiresPruning": True}
    ]
    assert read(said, holds).reason == "OutOfSync: InferencePool old waits to be pruned"


@pytest.mark.parametrize(
    ("policy", "automated"),
    [(None, False), ({}, False), ({"automated": {}}, True), ({"automated": {"enabled": False}}, False)],
)
def test_who_syncs(policy: Any, automated: bool) -> None:
    assert is_automated({"spec": {"syncPolicy": policy}}) is automated


def test_only_a_running_sync_is_tried_again() -> None:
    assert retries({"phase": "Running", "retryCount": 2}) == 2
    assert retries({"phase": "Failed", "retryCount": 2}) == 0
