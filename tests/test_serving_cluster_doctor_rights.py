"""The rights that the doctor asks for are the ones that deploy/ gives, and one verb less is found, by name."""

from __future__ import annotations

import copy
from functools import partial

import pytest
from kubernetes import client, config

from serving.cluster_doctor.examine import examine
from serving.cluster_doctor.expected import OVERLAYS, Overlay, expected
from serving.cluster_doctor.model import Right
from serving.cluster_doctor.read import allowed, read_cluster
from serving.cluster_doctor.rights import rights
from serving.manifests.model import Form
from serving.manifests.read_room import read_room
from serving.manifests.render import objects
from tests.fix_complete_cluster import CompleteCluster
from tests.fix_deploy import DEPLOY, Document, rendered
from tests.fix_rendered import desired

WANTED = expected("gke-l4")
ACCOUNT = {"kind": "ServiceAccount", "name": "flow-run", "namespace": "mlops"}


def given(documents: list[Document]) -> set[Right]:
    """What the bindings of flow-run give it, verb by verb."""
    roles = {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in documents}
    found: set[Right] = set()
    for binding in (one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        if ACCOUNT not in binding["subjects"]:
            continue
        space = binding["metadata"].get("namespace", "")
        role = roles[binding["roleRef"]["kind"], space, binding["roleRef"]["name"]]
        for rule in role["rules"]:
            found |= {
                Right(verb, group, resource, space, name)
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for name in rule.get("resourceNames", [""])
            }
    return found


def test_the_table_is_what_the_overlay_for_gke_gives_verb_by_verb() -> None:
    asked = rights(WANTED)
    assert len(set(asked)) == len(asked) > 90
    assert set(asked) == given(rendered(DEPLOY / "overlays" / "gke-l4"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_overlay_gives_less_than_is_asked_for_or_anything_dangerous(overlay: Overlay) -> None:
    has = given(rendered(DEPLOY / "overlays" / overlay))
    assert set(rights(expected(overlay))) <= has
    for right in has:
        assert "*" not in (right.verb, right.group, right.resource)
        assert right.verb not in ("escalate", "bind", "impersonate", "deletecollection")
        assert right.resource not in ("pods/exec", "serviceaccounts/token")
        assert right.resource != "secrets" or (right.verb == "get" and right.name)


def without(documents: list[Document], right: Right) -> tuple[Document, Document]:
    """The Role that gives it, and the same with that verb taken out for that resource alone."""
    for role in (one for one in documents if one["kind"] in ("Role", "ClusterRole")):
        changed = copy.deepcopy(role)
        for rule in changed["rules"]:
            if _covers(rule, right) and role["metadata"].get("namespace", "") == right.namespace:
                others = {**rule, "resources": [one for one in rule["resources"] if one != right.resource]}
                names = [one for one in rule.get("resourceNames", []) if one != right.name]
                rule["resources"] = [right.resource]
                named = {**copy.deepcopy(rule), "resourceNames": names} if names else None
                rule["verbs"] = [one for one in rule["verbs"] if one != right.verb]
                if right.name:
                    rule["resourceNames"] = [right.name]
                changed["rules"] = [one for one in changed["rules"] if one["verbs"]]
                changed["rules"] += [*([others] if others["resources"] else []), *([named] if named else [])]
                return role, changed
    raise AssertionError(f"no Role gives {right}")


def _covers(rule: Document, right: Right) -> bool:
    return (
        right.verb in rule["verbs"] and right.group in rule["apiGroups"] and right.resource in rule["resources"]
        and (right.name in rule.get("resourceNames", [""]))
    )  # fmt: skip


@pytest.mark.slow
def test_one_verb_less_fails_and_is_named(complete_cluster: CompleteCluster) -> None:
    """One right in four, in turn, asked with a token of the account; what it hides is not missed beside it."""
    documents = [one for one, _ in complete_cluster.wanted]
    file = complete_cluster.kubeconfig(complete_cluster.account_token())
    api: client.ApiClient = config.new_client_from_config(config_file=str(file))
    for right in rights(WANTED)[::4]:
        role, less = without(documents, right)
        complete_cluster.replace_rules(less)
        try:
            assert not complete_cluster.until(partial(allowed, api, right), lambda it: not it)
            examined = examine(read_cluster(api, WANTED), WANTED)
        finally:
            complete_cluster.replace_rules(role)
        assert [(one.check, one.where) for one in examined.findings] == [("right", str(right))]
        assert examined.missing
        assert complete_cluster.until(partial(allowed, api, right), bool)
    assert examine(read_cluster(api, WANTED), WANTED).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["inferenceservice", "deployment"])
def test_a_model_is_applied_read_changed_and_removed_under_the_rights(
    complete_cluster: CompleteCluster, form: Form
) -> None:
    """Every rendered object, server-side, with a token of the account; and the room for it is read."""
    wanted = desired(form=form)
    file = complete_cluster.kubeconfig(complete_cluster.account_token())
    headers = {
        "authorization": f"Bearer {complete_cluster.account_token()}",
        "content-type": "application/apply-patch+yaml",
    }
    paths = []
    for document in (one for documents in objects(wanted).values() for one in documents):
        path = complete_cluster.objects.path(document)
        for weight in ("applied", "applied again"):
            answer = complete_cluster.client.patch(
                path, params={"fieldManager": "liftlock", "force": "true"}, headers=headers, json=document
            )
            assert answer.status_code in (200, 201), f"{weight}: {answer.text}"
        assert complete_cluster.client.get(path, headers=headers).status_code == 200
        paths.append(path)
    room = read_room(config.new_client_from_config(config_file=str(file)), wanted)
    assert [node.name for node in room.nodes] == ["l4-0"]
    for path in paths:
        assert complete_cluster.client.delete(path, headers=headers).status_code in (200, 202)
    assert len(paths) > 15


@pytest.mark.slow
def test_the_account_may_not_do_more(complete_cluster: CompleteCluster) -> None:
    headers = {"authorization": f"Bearer {complete_cluster.account_token()}"}
    refused = ("/api/v1/namespaces/serving/secrets", "/api/v1/namespaces/mlops/secrets/other", "/api/v1/secrets",
               "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications", "/api/v1/namespaces/kube-system/configmaps")  # fmt: skip
    for path in refused:
        assert complete_cluster.client.get(path, headers=headers).status_code == 403, path
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    for space in ("mlops", "serving", "argocd"):
        answer = complete_cluster.client.post(f"/api/v1/namespaces/{space}/pods", headers=headers, json=pod)
        assert answer.status_code == 403, space
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x", "namespace": "serving"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}  # fmt: skip
    path = complete_cluster.objects.path(role)
    apply = {**headers, "content-type": "application/apply-patch+yaml"}
    answer = complete_cluster.client.patch(path, params={"fieldManager": "liftlock"}, headers=apply, json=role)
    assert (answer.status_code == 403 and "escalat" in answer.text) or "attempting to grant" in answer.text
