"""Rendered pods and the admission policies of deploy/: what a release renders is admitted, and what was changed or not signed is not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.manifests.model import Desired, Member
from serving.manifests.render import objects
from tests.fix_applied import BASELINE, RESTRICTED, apply_all, await_running, engines, messages
from tests.fix_cluster import Cluster
from tests.fix_rendered import adapter_member, desired, member, on_one_engine
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow
POLICIES = Path(__file__).parents[1] / "deploy" / "policies"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


def install(cluster: Cluster, policy: str) -> None:
    for name, kind in (("policy", "validatingadmissionpolicies"), ("binding", "validatingadmissionpolicybindings")):
        document = yaml.safe_load((POLICIES / policy / "admission" / f"{name}.yaml").read_text())
        cluster.api.apply(f"{ADMISSION}/{kind}/{document['metadata']['name']}", document)


def pod_of(wanted: Desired) -> dict[str, Any]:
    """As the Deployment makes it."""
    template = objects(wanted)["ticket-router-v3/workload.yaml"][0]["spec"]["template"]
    metadata = {"name": "engine", "annotations": template["metadata"]["annotations"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_rendered_stamps_are_admitted_and_a_changed_argument_is_not(cluster: Cluster) -> None:
    install(cluster, "gpu-fit")
    namespace = cluster.api.namespace({**RESTRICTED, "liftlock.dev/gpu-fit": "required"})
    pod = pod_of(desired(form="deployment", namespace=namespace, candidate=None, weight=0))
    changed = copy.deepcopy(pod)
    changed["spec"]["containers"][0]["args"].append("--max-num-seqs=1024")
    await_that(lambda: cluster.api.create_pod(namespace, changed).status_code == 422)
    assert cluster.api.create_pod(namespace, pod).status_code == 201


@pytest.fixture
def guarded(kserve: Cluster) -> Iterator[str]:
    """A namespace where modelcars must be signed, and where they were seen refused; its GPUs are given back."""
    install(kserve, "signed-modelcar")
    name = kserve.api.namespace({**BASELINE, "liftlock.dev/signed-modelcar": "required"})
    unsigned = pod_of(desired(form="deployment", namespace=name, stable=not_signed(member()), candidate=None, weight=0))
    await_that(lambda: kserve.api.create_pod(name, unsigned).status_code == 422)
    yield name
    kserve.remove_namespace(name)


def not_signed(one: Member) -> Member:
    return replace(one, evidence=tuple(each for each in one.evidence if each[0] != "signature"))


@pytest.mark.parametrize("form", ["deployment", "inferenceservice"])
def test_a_signed_modelcar_is_admitted_as_rendered_and_one_that_is_not_signed_is_denied(
    kserve: Cluster, guarded: str, form: Any
) -> None:
    """By controllers: stable is signed and its pod is there, the candidate is not and the ReplicaSet says why."""
    apply_all(kserve, desired(form=form, namespace=guarded, candidate=not_signed(member("4"))))
    said = await_that(lambda: found if "No signature is named" in (found := messages(kserve, guarded)) else "")
    assert f"No signature is named for the modelcar {member('4').modelcar}" in said
    assert member("3").modelcar not in said
    (pod,) = await_that(lambda: engines(kserve, guarded))
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "ticket-router-v3"


def test_an_adapter_canary_of_kserve_has_both_modelcars_in_its_pod(kserve: Cluster, guarded: str) -> None:
    """The candidate's by KServe's sidecar, stable's as an image volume that KServe hands on; both signatures are asked for."""
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    wanted = on_one_engine(namespace=guarded, stable=old, candidate=new)
    apply_all(kserve, wanted)
    (pod,) = await_running(kserve, guarded, 1)
    assert {each["name"]: each["image"] for each in pod["spec"]["containers"]}["modelcar"] == new.modelcar
    volumes = [each["image"]["reference"] for each in pod["spec"]["volumes"] if "image" in each]
    assert volumes == [old.modelcar]
    engine = next(each for each in pod["spec"]["containers"] if each["name"] == "kserve-container")
    mounts = {each["name"]: each["mountPath"] for each in engine["volumeMounts"]}
    assert mounts["modelcar-1"] == "/mnt/modelcar-1"
    assert "ticket-router-v3=/mnt/modelcar-1/models/adapters/ticket-router-v3" in engine["args"]
