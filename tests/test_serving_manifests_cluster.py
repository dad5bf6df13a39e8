"""What is rendered meets a real API server, scheduler, KServe and endpoint picker; kwok plays the kubelets, so no container runs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from kubernetes import config

from serving.manifests.capacity import judge
from serving.manifests.model import Desired, Form
from serving.manifests.pool import arguments
from serving.manifests.read_room import read_room
from serving.manifests.render import KUSTOMIZATION, objects, render
from tests.fix_api_server import find_program, running
from tests.fix_applied import (
    BASELINE,
    RESTRICTED,
    apply,
    apply_all,
    await_running,
    engines,
    messages,
    path_of,
    pods_of,
)
from tests.fix_cluster import Cluster, wait_for_port
from tests.fix_envoy import free_ports
from tests.fix_rendered import desired, member, on_one_engine
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Its pods go with it, so that their GPUs are free for the next test."""
    name = cluster.api.namespace(getattr(request, "param", RESTRICTED))
    yield name
    cluster.remove_namespace(name)


def nodes_of(pods: list[dict[str, Any]]) -> set[str]:
    return {each["spec"]["nodeName"] for each in pods}


def room_of(cluster: Cluster, wanted: Desired) -> Any:
    return read_room(config.new_client_from_config(str(cluster.kubeconfig)), wanted)


@pytest.mark.parametrize("form", get_args(Form))
def test_every_object_is_taken_as_it_is_and_again_changes_nothing(kserve: Cluster, namespace: str, form: Any) -> None:
    """Applied again it makes no new version of anything: what a server or webhook adds is no difference for ever."""
    every = [desired(form=form, namespace=namespace, stable=member("3", replicas=2))]
    if form != "llminferenceservice":
        every.append(on_one_engine(form=form, namespace=namespace, model="one"))
    for wanted in every:
        first = apply_all(kserve, wanted)
        assert {path.split("/")[-2] for path in first} >= {"inferencepools", "httproutes", "servicemonitors", "roles"}
        before = {path: generation(kserve, path) for path in first}
        apply_all(kserve, wanted)
        assert {path: generation(kserve, path) for path in first} == before


def generation(cluster: Cluster, path: str) -> Any:
    """Grows with the spec alone; objects without one have their whole content for it."""
    document = cluster.get(path)
    meta = document["metadata"]
    return meta.get("generation") or {key: value for key, value in document.items() if key != "metadata"}


def test_deployments_run_on_l4_nodes_under_the_restricted_standard(cluster: Cluster, namespace: str) -> None:
    wanted = desired(form="deployment", namespace=namespace)
    assert judge(wanted, room_of(cluster, wanted)).schedulable
    apply_all(cluster, wanted)
    pods = await_running(cluster, namespace, 2)
    for node in nodes_of(pods):
        labels = cluster.get(f"/api/v1/nodes/{node}")["metadata"]["labels"]
        assert labels.items() >= L4.items()
    assert len(nodes_of(pods)) == 2
    images = {each["spec"]["volumes"][0]["image"]["reference"] for each in pods}
    assert images == {each.modelcar for each in wanted.members}
    pickers = await_that(lambda: pods_of(cluster, namespace, **{"app.kubernetes.io/component": "endpoint-picker"}))
    assert "cpu-0" in {each["spec"].get("nodeName") for each in pickers}


@pytest.mark.parametrize("namespace", [BASELINE], indirect=True)
def test_kserve_puts_the_modelcar_beside_the_engine(kserve: Cluster, namespace: str) -> None:
    wanted = desired(namespace=namespace)
    assert judge(wanted, room_of(kserve, wanted)).schedulable
    apply_all(kserve, wanted)
    pods = await_running(kserve, namespace, 2)
    for pod, of in zip(sorted(pods, key=lambda each: str(each["metadata"]["name"])), wanted.members, strict=True):
        names = {each["name"]: each["image"] for each in pod["spec"]["containers"]}
        assert names == {"kserve-container": wanted.platform.engine_image, "modelcar": of.modelcar}
        assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == wanted.name_of(of)
        assert kserve.get(f"/api/v1/nodes/{pod['spec']['nodeName']}")["metadata"]["labels"].items() >= L4.items()


@pytest.mark.parametrize("namespace", [BASELINE], indirect=True)
def test_kserve_makes_no_way_past_the_gateway_and_scales_nothing(kserve: Cluster, namespace: str) -> None:
    wanted = on_one_engine(namespace=namespace)
    apply_all(kserve, wanted)
    await_running(kserve, namespace, 1)
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/ticket-router"
    ready = {"type": "Ready", "status": "True"}
    await_that(lambda: any(ready.items() <= each.items() for each in kserve.get(path)["status"]["conditions"]))
    routes = kserve.get(f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes")["items"]
    assert [each["metadata"]["name"] for each in routes] == ["ticket-router-route"]
    assert kserve.get(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")["items"] == []


def test_kserves_own_containers_are_all_that_the_restricted_standard_refuses(kserve: Cluster, namespace: str) -> None:
    """The exception by name, and the renderer says so before."""
    wanted = desired(namespace=namespace)
    assert any("restricted" in reason for reason in judge(wanted, room_of(kserve, wanted)).reasons)
    apply_all(kserve, wanted)
    said = await_that(lambda: found if "violates PodSecurity" in (found := messages(kserve, namespace)) else "")
    blamed = {name for part in said.split("containers ")[1:] for name in part.partition(" must")[0].split(", ")}
    assert blamed == {'"modelcar-init"', '"modelcar"'}


def test_a_swap_leaves_one_engine_and_takes_the_gpu_over(cluster: Cluster, namespace: str) -> None:
    for weight, running_member in ((0, "ticket-router-v3"), (100, "ticket-router-v4"), (0, "ticket-router-v3")):
        wanted = desired(form="deployment", strategy="swap", weight=weight, namespace=namespace)
        assert judge(wanted, room_of(cluster, wanted)).schedulable
        apply_all(cluster, wanted)
        await_that(
            lambda name=running_member: (
                [each["metadata"]["labels"]["app.kubernetes.io/name"] for each in engines(cluster, namespace)] == [name]
            )
        )


def test_what_is_refused_would_have_stayed_pending(cluster: Cluster, namespace: str) -> None:
    """Five engines for four GPUs: two of one version, three of the other."""
    wanted = desired(
        form="deployment", namespace=namespace, stable=member("3", replicas=2), candidate=member("4", replicas=3)
    )
    answer = judge(wanted, room_of(cluster, wanted))
    assert not answer.schedulable and answer.certain
    assert "need 5 GPUs" in answer.reasons[0]
    apply_all(cluster, wanted)
    await_that(lambda: "Insufficient nvidia.com/gpu" in messages(cluster, namespace))
    assert judge(replace(wanted, stable=member("3"), candidate=member("4")), room_of(cluster, wanted)).schedulable


def test_a_quota_for_one_gpu_admits_one_engine_and_the_renderer_says_so_before(
    cluster: Cluster, namespace: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus", "namespace": namespace}}
    apply(cluster, {**quota, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}})
    wanted = desired(form="deployment", namespace=namespace)
    await_that(lambda: cluster.get(path_of(quota)).get("status", {}).get("used"))
    assert (
        "quota gpus has 1 of requests.nvidia.com/gpu left, and 2 are needed"
        in judge(wanted, room_of(cluster, wanted)).reasons
    )
    apply_all(cluster, wanted)
    await_that(lambda: "exceeded quota: gpus" in messages(cluster, namespace))
    assert len(engines(cluster, namespace)) == 1


def test_the_picker_runs_with_the_rights_that_it_is_given(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """The real endpoint picker, as its own ServiceAccount: it finds pool, pods and rewrites, and is forbidden nothing."""
    wanted = on_one_engine(form="deployment", namespace=namespace)
    apply_all(cluster, wanted)
    await_running(cluster, namespace, 1)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/ticket-router-epp/token"
    token = cluster.api.client.post(path, json={"spec": {"expirationSeconds": 3600}}).json()["status"]["token"]
    kubeconfig = json.loads(cluster.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    grpc, health, metrics = free_ports(3)
    given = [
        word
        for word in arguments(wanted, "ticket-router")
        if not word.startswith(("--grpc-port", "--grpc-health", "--metrics-port"))
    ]
    ports = [f"--grpc-port={grpc}", f"--grpc-health-port={health}", f"--metrics-port={metrics}"]
    log = tmp_path / "epp.log"
    with running([find_program("epp"), *given, *ports], log, {"KUBECONFIG": str(tmp_path / "kubeconfig"), "PATH": ""}):
        wait_for_port(grpc)
        await_that(lambda: "ticket-router" in log.read_text())
        time.sleep(3)  # informers that are forbidden say so when they list first
        said = log.read_text()
    assert "forbidden" not in said.lower()
    assert "cannot list" not in said.lower()


def test_kustomize_builds_what_is_rendered(tmp_path: Path) -> None:
    wanted = desired()
    for path, text in render(wanted).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert (tmp_path / KUSTOMIZATION).is_file()
    done = subprocess.run([find_program("kustomize"), "build", tmp_path], capture_output=True, text=True, check=True)
    built = {path_of(each): each for each in yaml.safe_load_all(done.stdout)}
    assert built == {
        path_of(each): json.loads(json.dumps(each)) for documents in objects(wanted).values() for each in documents
    }


def test_the_reader_counts_what_runs_and_what_will_have_gone(cluster: Cluster, namespace: str) -> None:
    """A running stable member is not placed again; with one engine for both adapters its pod makes room for its successor."""
    stable = desired(form="deployment", namespace=namespace, candidate=None, weight=0)
    apply_all(cluster, stable)
    await_running(cluster, namespace, 1)
    await_that(lambda: "ticket-router-v3-epp" in room_of(cluster, stable).running)
    assert room_of(cluster, desired(form="deployment", namespace=namespace)).running == {
        "ticket-router-v3",
        "ticket-router-v3-epp",
    }
    free = sum(node.free["nvidia.com/gpu"] for node in room_of(cluster, stable).nodes if "nvidia.com/gpu" in node.free)
    swapped = desired(form="deployment", namespace=namespace, strategy="swap", weight=100)
    after = sum(
        node.free["nvidia.com/gpu"] for node in room_of(cluster, swapped).nodes if "nvidia.com/gpu" in node.free
    )
    assert after == free + 1
