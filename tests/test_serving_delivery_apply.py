"""Releases by server-side apply on a real API server, with another field manager that edits in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from serving.delivery.apply_effect import ApplyEffect
from serving.delivery.conflicts import Conflict
from serving.delivery.kube_api import FIELD_MANAGER, KubeApi
from serving.delivery.target import NOTHING
from serving.kube.connect import ClusterRefused
from serving.rollout.kept import Rollouts
from tasks.rollouts import abort
from tests.delivery_process import MODEL, Asked, kill_in_every_phase, killed_when, release, target_of
from tests.fix_cluster import Cluster
from tests.fix_engine import Behaviour
from tests.fix_pods import Pods, running_gateway

OTHER = {"fieldManager": "somebody"}
MERGE = {"content-type": "application/merge-patch+json"}
Object = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A namespace with a gateway in front of it."""

    cluster: Cluster
    pods: Pods
    asked: Asked

    def get(self, path: str) -> Object:
        return self.cluster.get(path.replace("NS", self.asked.namespace))

    def names(self, path: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.get(path)["items"]}

    def edit(self, path: str, change: Object) -> None:
        """By somebody else."""
        answer = self.cluster.api.client.patch(
            path.replace("NS", self.asked.namespace), json=change, params=OTHER, headers=MERGE
        )
        assert answer.status_code == 200, answer.text

    def delivered(self, version: str, **changes: Any) -> None:
        rollout = release(replace(self.asked, version=version, **changes))
        assert rollout.outcome == "completed", rollout.reason


DEPLOYMENTS = "/apis/apps/v1/namespaces/NS/deployments"
POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/NS/inferencepools"
ROUTE = f"/apis/gateway.networking.k8s.io/v1/namespaces/NS/httproutes/{MODEL}-route"


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Iterator[Scene]:
    namespace = cluster.api.namespace({})
    with running_gateway(cluster.api, namespace, MODEL) as (gateway, pods):
        asked = Asked(namespace, gateway, str(tmp_path / "state"), kubeconfig=str(cluster.kubeconfig))
        yield Scene(cluster, pods, asked)
    cluster.remove_namespace(namespace)


def test_a_release_moves_the_traffic_and_removes_what_was_stable(scene: Scene) -> None:
    scene.delivered("1")
    rollout = release(replace(scene.asked, version="2"))
    assert rollout.outcome == "completed", rollout.reason
    assert (rollout.target, rollout.previous) == ("kubernetes", f"{MODEL}-v1")
    assert [step.weight for step in rollout.steps] == [50, 100]
    assert scene.names(POOLS) == {f"{MODEL}-v2"}
    assert scene.names(DEPLOYMENTS) == {f"{MODEL}-v2", f"{MODEL}-v2-epp"}


def test_a_bad_candidate_is_undone_and_nothing_of_it_is_left(scene: Scene) -> None:
    scene.delivered("1")
    before = scene.get(ROUTE)["spec"]
    scene.pods.behaviours[f"{MODEL}-v2"] = Behaviour(stream_error_share=0.5)
    rollout = release(replace(scene.asked, version="2"))
    assert rollout.outcome == "undone" and "failed" in rollout.reason
    assert scene.names(DEPLOYMENTS) == {f"{MODEL}-v1", f"{MODEL}-v1-epp"}
    assert scene.get(ROUTE)["spec"] == before
    assert target_of(scene.asked).stable(MODEL) == f"{MODEL}-v1"


def test_another_managers_fields_stay_ours_come_back_and_it_is_told(scene: Scene) -> None:
    scene.delivered("1")
    deployment = f"{DEPLOYMENTS}/{MODEL}-v1"
    scene.edit(deployment, {"metadata": {"annotations": {"somebody/note": "mine"}}, "spec": {"minReadySeconds": 1}})
    scene.edit(deployment, {"spec": {"progressDeadlineSeconds": 77}})
    conflicts: list[Conflict] = []
    asked = replace(scene.asked, version="2")
    target = target_of(asked, conflicts)
    target.place(MODEL, f"{MODEL}-v2")
    found = scene.get(deployment)
    assert found["metadata"]["annotations"]["somebody/note"] == "mine"
    assert found["spec"]["minReadySeconds"] == 1
    assert found["spec"]["progressDeadlineSeconds"] == 900 + 900
    assert [(each.field, each.manager, each.name) for each in conflicts] == [
        (".spec.progressDeadlineSeconds", "somebody", f"{MODEL}-v1")
    ]
    assert "set by somebody" in str(conflicts[0])
    managers = {each["manager"] for each in found["metadata"]["managedFields"] if each["operation"] == "Apply"}
    assert managers == {FIELD_MANAGER}


def test_a_replica_that_cannot_be_scheduled_is_undone_with_the_schedulers_reason(scene: Scene) -> None:
    scene.delivered("1")
    rollout = release(replace(scene.asked, version="2", gpus=2, seconds=6))
    assert rollout.outcome == "undone"
    assert "Insufficient nvidia.com/gpu" in rollout.reason
    assert scene.names(DEPLOYMENTS) == {f"{MODEL}-v1", f"{MODEL}-v1-epp"}


def test_an_object_that_the_cluster_refuses_is_undone_with_its_reason(scene: Scene) -> None:
    scene.delivered("1")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"count/deployments.apps": "2"}},
    }
    scene.cluster.api.apply(f"/api/v1/namespaces/{scene.asked.namespace}/resourcequotas/few", quota)
    rollout = release(replace(scene.asked, version="2"))
    assert rollout.outcome == "undone"
    assert "exceeded quota: few" in rollout.reason
    assert scene.names(DEPLOYMENTS) == {f"{MODEL}-v1", f"{MODEL}-v1-epp"}
    assert scene.names(POOLS) == {f"{MODEL}-v1"}


def test_a_first_release_that_is_bad_leaves_nothing(scene: Scene) -> None:
    scene.pods.behaviours[f"{MODEL}-v1"] = Behaviour(error_share=1.0)
    assert release(scene.asked).outcome == "undone"
    assert scene.names(DEPLOYMENTS) == set()
    assert scene.names("/api/v1/namespaces/NS/configmaps") <= {"kube-root-ca.crt"}
    assert target_of(scene.asked).stable(MODEL) == NOTHING


class OneRefused(KubeApi):
    """The first deletion of a route is refused, as a webhook or a missing right would."""

    is_asked = False

    def delete(self, path: str) -> None:
        if "/httproutes/" in path and not self.is_asked:
            self.is_asked = True
            raise ClusterRefused(f"DELETE {path}: forbidden", 403)
        super().delete(path)


def test_an_undo_of_the_first_release_that_breaks_off_is_finished_by_the_next(scene: Scene) -> None:
    target = target_of(scene.asked)
    target.place(MODEL, f"{MODEL}-v1")
    assert isinstance(target.effect, ApplyEffect)
    refused = replace(target, effect=replace(target.effect, api=OneRefused(kubeconfig=scene.asked.kubeconfig)))
    with pytest.raises(ClusterRefused, match="forbidden"):
        refused.remove(f"{MODEL}-v1")
    assert scene.names(DEPLOYMENTS) == set() and scene.get(ROUTE)  # half of it is gone
    target.remove(f"{MODEL}-v1")
    assert scene.names(ROUTE.rpartition("/")[0]) == scene.names(POOLS) == set()
    assert scene.names("/api/v1/namespaces/NS/configmaps") <= {"kube-root-ca.crt"}


def test_the_record_is_written_before_anything_is_made_so_that_a_kill_leaves_nothing_behind(scene: Scene) -> None:
    """The pipeline is killed right after it has made the candidate's objects, and the release is given up."""
    asked = replace(scene.asked, gpus=2)  # never ready, so it waits
    killed_when(asked, lambda: f"{MODEL}-v1" in scene.names(DEPLOYMENTS))
    target = target_of(asked)
    target.remove(f"{MODEL}-v1")
    assert scene.names(DEPLOYMENTS) == set() and scene.names(POOLS) == set()


@pytest.mark.slow
def test_a_pipeline_killed_in_every_phase_ends_where_one_that_was_not_killed_ends(scene: Scene) -> None:
    scene.delivered("1")
    asked = replace(scene.asked, version="2")
    killed = kill_in_every_phase(asked)
    assert {"warming", "weighing", "watching", "promoting"} <= killed
    rollout = release(asked)
    assert rollout.outcome == "completed", rollout.reason
    assert scene.names(POOLS) == {f"{MODEL}-v2"}
    assert scene.names(DEPLOYMENTS) == {f"{MODEL}-v2", f"{MODEL}-v2-epp"}


def test_an_api_server_that_restarts_in_a_step_is_waited_for(scene: Scene) -> None:
    scene.delivered("1")
    ended: list[str] = []
    asked = replace(scene.asked, version="2")
    thread = threading.Thread(target=lambda: ended.append(release(asked).outcome))
    thread.start()
    time.sleep(0.5)
    scene.cluster.api.kill()
    time.sleep(2)
    scene.cluster.api.start()
    thread.join(120)
    assert ended == ["completed"]


def test_a_dry_run_says_what_would_change_and_changes_nothing(scene: Scene) -> None:
    scene.delivered("1")
    target = target_of(replace(scene.asked, version="2"))
    effect = target.effect
    assert isinstance(effect, ApplyEffect)
    said = target.preview(MODEL)
    assert f"+  name: {MODEL}-v2" in said and "liftlock.json" not in said
    assert scene.names(POOLS) == {f"{MODEL}-v1"}


def test_a_rollout_whose_pipeline_is_gone_is_aborted_by_a_person(scene: Scene) -> None:
    scene.delivered("1")
    asked, rollouts = replace(scene.asked, version="2"), Rollouts(Path(scene.asked.state) / "rollouts")
    killed_when(asked, lambda: rollouts.all()[-1].state.phase == "watching")
    assert scene.names(POOLS) == {f"{MODEL}-v1", f"{MODEL}-v2"}
    said = abort(rollouts, replace(target_of(asked), release=None), "not today")
    assert said == f"{MODEL}: undone; {MODEL}-v1 has all of the traffic"
    assert scene.names(POOLS) == {f"{MODEL}-v1"}
    assert rollouts.last().state.reason == "not today"
