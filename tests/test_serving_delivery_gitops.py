"""Releases as commits that a real Argo CD syncs onto a real API server, with somebody else who pushes in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serving.delivery.foreign import ForeignEdit
from serving.delivery.record import RECORD, from_text
from serving.rollout.model import Rollout
from tests.delivery_process import MODEL, Asked, kill_in_every_phase, release
from tests.fix_cluster import Cluster, add_application, remove_application
from tests.fix_engine import Behaviour
from tests.fix_platform import PlatformRepository
from tests.fix_pods import NAME, Pods, running_gateway
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow(seconds=240)  # each release is at least five commits that Argo CD syncs
FOLDER = f"models/{MODEL}"


@dataclass(frozen=True)
class Scene:
    """A namespace that an Application syncs from the repository, with a gateway in front."""

    cluster: Cluster
    repository: PlatformRepository
    pods: Pods
    asked: Asked

    def mine(self) -> list[str]:
        return [subject for subject in self.repository.subjects() if subject.startswith(MODEL)]

    def deployments(self) -> set[str]:
        found = self.cluster.get(f"/apis/apps/v1/namespaces/{self.asked.namespace}/deployments")["items"]
        return {each["metadata"]["name"] for each in found if not each["metadata"]["name"].endswith("-epp")}


@pytest.fixture
def scene(argocd: Cluster, platform_repository: PlatformRepository, tmp_path: Path) -> Iterator[Scene]:
    namespace = argocd.api.namespace({})
    add_application(argocd, platform_repository.url, "models", namespace)
    with running_gateway(argocd.api, namespace, MODEL) as (gateway, pods):
        asked = Asked(
            namespace, gateway, str(tmp_path / "state"), platform_repository.url, kubeconfig=str(argocd.kubeconfig)
        )
        yield Scene(argocd, platform_repository, pods, asked)
    remove_application(argocd, namespace)


def subjects(before: str, version: str) -> list[str]:
    """What a release without a fault writes."""
    return [
        f"{MODEL}: place candidate v{version} at 0 %, stable v{before} at 100 %",
        f"{MODEL}: candidate v{version} at 50 %, stable v{before} at 50 %",
        f"{MODEL}: candidate v{version} at 100 %, stable v{before} at 0 %",
        f"{MODEL}: promote v{version} alone",
    ]


FIRST = [f"{MODEL}: place v1 alone", f"{MODEL}: promote v1 alone"]


def test_a_release_is_commits_that_argo_cd_brings_into_force_beside_a_second_writer(scene: Scene) -> None:
    first = release(scene.asked)
    assert first.outcome == "completed", first.reason
    stop = threading.Event()

    def write() -> None:
        for number in range(100):
            scene.repository.push_file(f"other/{number}.txt", "x\n", f"Other {number}")
            if stop.wait(1.5):
                return

    second = threading.Thread(target=write)
    second.start()
    try:
        rollout = release(replace(scene.asked, version="2"))
    finally:
        stop.set()
        second.join()
    assert rollout.outcome == "completed", rollout.reason
    assert rollout.target == "gitops"
    assert scene.mine() == FIRST + subjects("1", "2")
    assert scene.repository.merges() == ""
    assert sum(subject.startswith("Other") for subject in scene.repository.subjects()) >= 2
    assert [step.weight for step in rollout.steps] == [50, 100]
    assert 0.2 < rollout.steps[0].observed_share < 0.8 and rollout.steps[1].observed_share == 1
    assert scene.deployments() == {f"{MODEL}-v2"}
    record = from_text(scene.repository.show(f"{FOLDER}/{RECORD}"))
    assert record.desired.stable and record.desired.stable.version == "2"
    assert record.previous and record.previous.version == "1"


def test_a_pipeline_killed_in_every_phase_leaves_the_history_of_one_that_was_not(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    asked = replace(scene.asked, version="2")
    killed = kill_in_every_phase(asked)
    assert {"warming", "weighing", "watching", "promoting"} <= killed
    rollout = release(asked)
    assert rollout.outcome == "completed", rollout.reason
    assert scene.mine() == FIRST + subjects("1", "2")
    assert scene.deployments() == {f"{MODEL}-v2"}


def test_a_bad_candidate_is_undone_by_commits_and_an_undo_that_is_killed_is_gone_on_with(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    scene.pods.behaviours[f"{MODEL}-v2"] = Behaviour(
        error_share=0.1
    )  # every tenth: not in the warm-up, and in each step
    asked = replace(scene.asked, version="2")
    killed = kill_in_every_phase(asked)
    assert {"withdrawing", "removing"} & killed
    assert scene.mine()[2:] == [
        f"{MODEL}: place candidate v2 at 0 %, stable v1 at 100 %",
        f"{MODEL}: candidate v2 at 50 %, stable v1 at 50 %",
        f"{MODEL}: undo: candidate v2 at 0 %, stable v1 at 100 %",
        f"{MODEL}: undo: remove v2",
    ]
    assert "candidate requests failed" in " ".join(scene.repository.message().split())
    assert scene.deployments() == {f"{MODEL}-v1"}


def test_a_sync_that_fails_is_undone_with_argo_cds_reason(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    limit_deployments(scene, 2)
    rollout = release(replace(scene.asked, version="2"))
    assert rollout.outcome == "undone"
    assert "exceeded quota: few" in rollout.reason
    assert scene.mine()[-1] == f"{MODEL}: undo: remove v2"
    assert "exceeded quota: few" in " ".join(scene.repository.message().split())
    assert scene.deployments() == {f"{MODEL}-v1"}


def limit_deployments(scene: Scene, most: int) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    hard = {"spec": {"hard": {"count/deployments.apps": str(most)}}}
    scene.cluster.api.apply(f"/api/v1/namespaces/{scene.asked.namespace}/resourcequotas/few", quota | hard)


def test_a_replica_that_is_never_ready_is_undone_with_the_schedulers_reason(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    rollout = release(replace(scene.asked, version="2", gpus=2, seconds=12))
    assert rollout.outcome == "undone"
    assert "Insufficient nvidia.com/gpu" in rollout.reason and "is not in force after 12 s" in rollout.reason
    assert scene.mine()[2:] == [f"{MODEL}: place candidate v2 at 0 %, stable v1 at 100 %", f"{MODEL}: undo: remove v2"]


def test_a_first_release_that_is_refused_leaves_nothing_even_where_argo_cd_takes_the_removal_late(scene: Scene) -> None:
    """The Application skips its reconciliation while the removal is written, for longer than the undo's first try has."""
    sync_by_hand(scene)
    asked = replace(scene.asked, gpus=2, seconds=6)
    ended: list[Rollout] = []
    thread = threading.Thread(target=lambda: ended.append(release(asked)))
    thread.start()
    await_that(lambda: scene.deployments(), why=lambda: "nothing was placed")
    skip_reconcile(scene, "true")
    await_that(lambda: len(scene.mine()) == 2, why=lambda: str(scene.mine()))
    time.sleep(asked.seconds + 2)
    skip_reconcile(scene, None)
    thread.join(120)
    assert [each.outcome for each in ended] == ["undone"]
    assert scene.mine() == [f"{MODEL}: place v1 alone", f"{MODEL}: undo: remove v1"]
    assert scene.deployments() == set()


def skip_reconcile(scene: Scene, value: str | None) -> None:
    patch_application(scene, {"metadata": {"annotations": {"argocd.argoproj.io/skip-reconcile": value}}})


def sync_by_hand(scene: Scene) -> str:
    """As the platform has its GPU applications. Its path."""
    return patch_application(scene, {"spec": {"syncPolicy": {"automated": None}}})


def patch_application(scene: Scene, patch: dict[str, object]) -> str:
    path = f"/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/{scene.asked.namespace}"
    merge(scene, path, patch)
    return path


def merge(scene: Scene, path: str, change: dict[str, object]) -> None:
    scene.cluster.api.client.patch(path, json=change, headers={"content-type": "application/merge-patch+json"})


def test_another_hands_edit_stops_the_release_where_it_is_and_a_revert_lets_it_go_on(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    path = f"{FOLDER}/route.yaml"
    scene.repository.push_file(path, scene.repository.show(path).replace("240s", "200s"), "Shorter")
    asked = replace(scene.asked, version="2")
    with pytest.raises(ForeignEdit, match="Shorter"):
        release(asked)
    assert scene.mine() == FIRST and scene.repository.subjects()[-1] == "Shorter"
    scene.repository.revert_last()
    assert release(asked).outcome == "completed"
    assert scene.mine() == FIRST + subjects("1", "2")


def test_a_manual_application_is_synced_because_liftlock_asks_for_it(argocd: Cluster, scene: Scene) -> None:
    path = sync_by_hand(scene)
    assert release(scene.asked).outcome == "completed"
    assert release(replace(scene.asked, version="2")).outcome == "completed"
    assert scene.deployments() == {f"{MODEL}-v2"}
    by = argocd.get(path)["status"]["operationState"]["operation"]["initiatedBy"]["username"]
    assert by == "liftlock"


def test_a_node_that_goes_while_the_canary_is_watched_undoes_it_and_stable_serves_on(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    scene.pods.behaviours[f"{MODEL}-v2"] = Behaviour(first_token_seconds=0.4)  # not decided before the node is gone
    ended: list[Rollout] = []
    asked = replace(scene.asked, version="2")
    thread = threading.Thread(target=lambda: ended.append(release(asked)))
    thread.start()
    node = lose_node_of(scene, f"{MODEL}-v2")
    thread.join(120)
    scene.cluster.add_l4(node)
    cordon(scene, False)
    assert [each.outcome for each in ended] == ["undone"]
    assert "failed" in ended[0].reason
    assert scene.deployments() == {f"{MODEL}-v1"}


def released_over_a_restart(scene: Scene, seconds: float, away_seconds: float) -> Rollout:
    """Version 2; the API server goes when the first commit is there, and comes back after `away_seconds`."""
    ended: list[Rollout] = []
    asked = replace(scene.asked, version="2", seconds=seconds)
    thread = threading.Thread(target=lambda: ended.append(release(asked)))
    thread.start()
    await_that(lambda: len(scene.mine()) > len(FIRST), why=lambda: "no commit")
    scene.cluster.api.kill()
    time.sleep(away_seconds)
    scene.cluster.api.start()
    thread.join(180)
    (rollout,) = ended
    return rollout


def test_an_api_server_that_restarts_in_a_step_leaves_the_history_of_one_that_did_not(scene: Scene) -> None:
    assert release(scene.asked).outcome == "completed"
    rollout = released_over_a_restart(scene, scene.asked.seconds, 2)
    assert rollout.outcome == "completed", rollout.reason
    assert scene.mine() == FIRST + subjects("1", "2")
    assert scene.deployments() == {f"{MODEL}-v2"}


def test_an_api_server_that_is_away_for_longer_than_a_step_undoes_it_and_is_named(scene: Scene) -> None:
    """The step has 4 s, the undo 4 s more: it ends after the server is back."""
    assert release(scene.asked).outcome == "completed"
    rollout = released_over_a_restart(scene, 4, 6)
    assert rollout.outcome == "undone" and "does not answer" in rollout.reason, rollout.reason
    assert scene.mine()[2:] == [f"{MODEL}: place candidate v2 at 0 %, stable v1 at 100 %", f"{MODEL}: undo: remove v2"]
    assert scene.deployments() == {f"{MODEL}-v1"}


def cordon(scene: Scene, unschedulable: bool) -> None:
    """Every node, so that no other one takes the pod over."""
    for node in scene.cluster.get("/api/v1/nodes")["items"]:
        merge(scene, f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": unschedulable}})


def lose_node_of(scene: Scene, member: str) -> str:
    """As soon as the member is asked; its pod goes as it does when the node's grace is over."""
    deadline = time.monotonic() + 60
    while scene.pods.asked(member) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    path = f"/api/v1/namespaces/{scene.asked.namespace}/pods"
    pods = [pod for pod in scene.cluster.get(path)["items"] if pod["metadata"]["labels"][NAME] == member]
    node: str = pods[0]["spec"]["nodeName"]
    cordon(scene, True)
    scene.cluster.api.client.delete(f"/api/v1/nodes/{node}")
    for pod in pods:
        name = pod["metadata"]["name"]
        scene.cluster.api.client.request("DELETE", f"{path}/{name}", json={"gracePeriodSeconds": 0})
    return node
