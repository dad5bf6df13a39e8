"""A whole release and its undo under the rights of deploy/: with the account's token, against real controllers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.kube.connect import ClusterRefused
from serving.rollout.model import Rollout
from tests.delivery_process import MODEL, Asked, release
from tests.fix_cluster import Cluster
from tests.fix_complete_cluster import thing
from tests.fix_deploy import DEPLOY, Document, Objects, rendered
from tests.fix_engine import Behaviour
from tests.fix_pods import Pods, running_gateway

pytestmark = pytest.mark.slow


class Place:
    """A namespace of models with deploy/serving's Role for flow-run, and a kubeconfig of that account."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.objects, self.space = Objects(cluster.api), cluster.api.namespace({})
        self.objects.put(thing("v1", "Namespace", "mlops"))
        self.account = [
            self.moved(one)
            for one in rendered(DEPLOY / "mlops")
            if one["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
        ]
        roles = [
            one
            for name in ("serving", "argocd")
            for one in rendered(DEPLOY / name)
            if one["kind"] in ("Role", "RoleBinding")
        ]
        self.roles = [self.moved(one) for one in roles]
        for one in (thing("v1", "Namespace", "argocd"), *self.account):
            self.objects.put(one)
        self.allow()
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = cluster.api.client.post("/api/v1/namespaces/mlops/serviceaccounts/flow-run/token", json=request)
        config: dict[str, Any] = json.loads(cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
        self.kubeconfig = folder / "flow-run"
        self.kubeconfig.write_text(json.dumps(config))

    def moved(self, document: Document) -> Document:
        """What is for the namespace of the models."""
        made = copy.deepcopy(document)
        if made["metadata"].get("namespace") == "serving":
            made["metadata"]["namespace"] = self.space
        for rule in made.get("rules", ()):
            if "serving" in rule.get("resourceNames", ()):
                rule["resourceNames"] = [self.space if name == "serving" else name for name in rule["resourceNames"]]
        return made

    def allow(self) -> None:
        """All that deploy/ allows."""
        for one in self.roles:
            self.objects.put(one)

    def without(self, verb: str, resource: str) -> None:
        """One verb less on one resource."""
        for role in (one for one in self.roles if one["kind"] == "Role"):
            rules = []
            for rule in role["rules"]:
                others = {**rule, "resources": [one for one in rule["resources"] if one != resource]}
                less = {**rule, "resources": [resource], "verbs": [one for one in rule["verbs"] if one != verb]}
                rules += [
                    one
                    for one in (others, *([less] if resource in rule["resources"] else []))
                    if one["resources"] and one["verbs"]
                ]
            self.objects.put({**role, "rules": rules})


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Place, Pods, Asked]]:
    place = Place(cluster, tmp_path)
    with running_gateway(cluster.api, place.space, MODEL) as (gateway, pods):
        yield place, pods, Asked(place.space, gateway, str(tmp_path / "state"), kubeconfig=str(place.kubeconfig))
    cluster.remove_namespace(place.space)


def test_a_release_a_second_and_an_undo_need_no_more(scene: tuple[Place, Pods, Asked]) -> None:
    _, pods, asked = scene
    for version in ("1", "2"):
        rollout: Rollout = release(replace(asked, version=version))
        assert rollout.outcome == "completed", rollout.reason
    pods.behaviours[f"{MODEL}-v3"] = Behaviour(stream_error_share=0.5)
    assert release(replace(asked, version="3")).outcome == "undone"


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("create", "deployments"), ("patch", "inferencepools"), ("create", "rolebindings"), ("watch", "pods")],
)
def test_one_verb_less_and_the_release_stops(scene: tuple[Place, Pods, Asked], verb: str, resource: str) -> None:
    """`watch pods` is in the picker's own Role too, which nobody may make who has it not."""
    place, _, asked = scene
    place.without(verb, resource)
    try:
        rollout = release(replace(asked, version="1"))
    except ClusterRefused as refused:
        assert refused.status == 403
    else:
        assert rollout.outcome != "completed" and ("forbidden" in rollout.reason or "403" in rollout.reason), rollout
