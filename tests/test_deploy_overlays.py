"""The three overlays on a real API server: every object strictly, every pod where only restricted ones are admitted.

The Job of the work pool, quota and limits included. Without the programs or the definitions the tests are skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from serving.manifests.render import render
from tasks.settings import Settings
from tests.fix_api_server import ApiServer, running_api_server
from tests.fix_deploy import DEFINITIONS, DEPLOY, OVERLAYS, Document, Objects, pod_templates, rendered
from tests.fix_rendered import desired
from tests.test_deploy_prefect import job

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PULLED = {"ghcr.io/cloudnative-pg/postgresql"}  # the image whose digest stands in the manifests


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One of our own: the overlays' namespaces have fixed names."""
    with running_api_server(tmp_path_factory.mktemp("overlays")) as running:
        objects = Objects(running)
        objects.define(*DEFINITIONS)
        for name in ("serving", "argocd"):
            objects.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield running


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_object_of_an_overlay(server: ApiServer, overlay: str) -> None:
    objects, documents = Objects(server), rendered(DEPLOY / "overlays" / overlay)
    assert len(documents) >= 29
    for document in documents:
        answer = objects.apply(document, dry_run=document["kind"] != "Namespace")
        name = f"{document['kind']} {document['metadata']['name']}"
        assert answer.status_code in (200, 201), f"{name}: {answer.text}"
        assert "warning" not in answer.headers, f"{name}: {answer.headers['warning']}"


def test_an_unknown_field_would_have_been_seen(server: ApiServer) -> None:
    objects = Objects(server)
    for document in rendered(DEPLOY / "overlays" / "gke-l4"):
        if document["kind"] in ("LocalQueue", "Cluster", "ExternalSecret", "Application", "Deployment"):
            wrong = copy.deepcopy(document)
            wrong["spec"]["noSuchField"] = True
            answer = objects.apply(wrong, dry_run=True)
            assert answer.status_code in (400, 422, 500) and "noSuchField" in answer.text, answer.text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_admitted_where_only_restricted_ones_are(server: ApiServer, overlay: str) -> None:
    namespace = server.namespace(RESTRICTED)
    pods = pod_templates(rendered(DEPLOY / "overlays" / overlay))
    assert [name for name, _ in pods] == ["mlflow", "prefect-server", "prefect-worker"]
    for name, pod in pods:
        answer = server.create_pod(namespace, pod)
        assert answer.status_code == 201, f"{name}: {answer.text}"
        del pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
        assert "violates PodSecurity" in server.create_pod(namespace, pod).text


def test_servers_and_two_trainings_are_within_quota_and_limits(server: ApiServer) -> None:
    """A third training is refused by the quota, with its reason."""
    objects, documents = Objects(server), rendered(DEPLOY / "overlays" / "gke-l4")
    for document in documents:
        if document["kind"] in ("Namespace", "ServiceAccount", "ResourceQuota", "LimitRange", "PersistentVolumeClaim"):
            objects.put(document)
    quota = next(one for one in documents if one["kind"] == "ResourceQuota")
    objects.status(quota, {"hard": quota["spec"]["hard"], "used": dict.fromkeys(quota["spec"]["hard"], "0")})
    database = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "liftlock-pg-1"},
        "spec": {"containers": [{
            "name": "postgres", "image": "x",
            "resources": next(one["spec"]["resources"] for one in documents if one["kind"] == "Cluster"),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }], "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}},
    }  # fmt: skip
    for _, pod in [*pod_templates(documents), ("database", database)]:
        assert server.create_pod("mlops", pod, dry_run=False).status_code == 201
    for number in range(3):
        (_, pod), *_ = pod_templates([job(name=f"training-{number}")])
        pod["metadata"]["name"] = f"training-{number}"
        answer = server.create_pod("mlops", pod, dry_run=False)
        assert answer.status_code == (201 if number < 2 else 403), answer.text
    assert "exceeded quota: mlops" in answer.text and "nvidia.com/gpu" in answer.text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_references_between_objects_meet(overlay: str) -> None:
    """Accounts, claims, config maps and secrets that a pod or a binding names are there, or a controller makes them."""
    documents = rendered(DEPLOY / "overlays" / overlay)
    there = {(one["kind"], one["metadata"]["name"]) for one in [*documents, *rendered(DEPLOY / "state")]}
    there |= {
        ("Secret", "liftlock-pg-app"),
        ("Secret", "liftlock-secrets"),
        ("Secret", "liftlock-signing"),
    }  # CloudNativePG's, and of the store
    for _, pod in [*pod_templates(documents), *pod_templates([job()])]:
        assert set(_named(pod["spec"])) - there <= {
            ("ServiceAccount", "default"),
            ("ConfigMap", "registry-credentials"),
        }
    for binding in (one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in there
        assert {("ServiceAccount", subject["name"]) for subject in binding["subjects"]} <= there


def _named(spec: Document) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", spec.get("serviceAccountName", "default")
    for volume in spec.get("volumes", ()):
        for field, kind, key in (
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
        ):
            if field in volume:
                yield kind, volume[field][key]
    for container in spec["containers"]:
        for source in container.get("envFrom", ()):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    yield kind, source[field]["name"]
        for variable in container.get("env", ()):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_known_and_digests_are_real_or_plainly_unset(overlay: str) -> None:
    documents = rendered(DEPLOY / "overlays" / overlay)
    known = {f"LIFTLOCK_{field.upper()}" for field in Settings.model_fields}
    data = next(one["data"] for one in documents if one["metadata"]["name"] == "liftlock-settings")
    assert {name for name in data if name.startswith("LIFTLOCK_")} <= known
    for _, pod in pod_templates(documents):
        assert {one["image"].rpartition(":")[2] for one in pod["spec"]["containers"]} == {"digest-not-set"}
    cluster = next(one for one in documents if one["kind"] == "Cluster")
    assert cluster["spec"]["imageName"].partition(":")[0] in PULLED and "@sha256:" in cluster["spec"]["imageName"]


def test_waves_put_the_database_before_what_needs_it() -> None:
    documents = rendered(DEPLOY / "overlays" / "gke-l4")
    key = "argocd.argoproj.io/sync-wave"
    wave = {
        (one["kind"], one["metadata"]["name"]): int(one["metadata"].get("annotations", {}).get(key, 0))
        for one in documents
    }
    assert wave["Namespace", "mlops"] == wave["ExternalSecret", "liftlock-secrets"] == 0
    assert wave["Cluster", "liftlock-pg"] < wave["Database", "mlflow"] < wave["Deployment", "mlflow"]
    assert wave["Database", "prefect"] < wave["Deployment", "prefect-server"] < wave["Deployment", "prefect-worker"]
    assert "PersistentVolumeClaim" not in {kind for kind, _ in wave}  # Argo CD would wait for it: deploy/state


def test_a_gpu_application_is_synced_by_hand_and_the_other_by_itself() -> None:
    found = {one["metadata"]["name"]: one for one in rendered(DEPLOY / "argocd") if one["kind"] == "Application"}
    assert "automated" not in found["liftlock-models"]["spec"]["syncPolicy"]
    assert found["liftlock"]["spec"]["syncPolicy"]["automated"]["selfHeal"] is True
    assert {one["spec"]["project"] for one in found.values()} == {"platform"}


def test_the_projects_rows_are_added_to_the_platforms(tmp_path: Path) -> None:
    """As its clusters/ai-dev/projects/platform.yaml would be kustomized: nothing of it is lost."""
    component = tmp_path / "component"
    component.mkdir()
    (component / "kustomization.yaml").write_text((DEPLOY / "argocd" / "project" / "kustomization.yaml").read_text())
    project = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "platform", "namespace": "argocd"},
        "spec": {"sourceRepos": ["https://git.example.com/platform.git"], "destinations": [{"namespace": "*", "server": "*"}]},
    }  # fmt: skip
    (tmp_path / "platform.yaml").write_text(yaml.safe_dump(project))
    (tmp_path / "kustomization.yaml").write_text("resources: [platform.yaml]\ncomponents: [component]\n")
    (made,) = rendered(tmp_path)
    applications = [one for one in rendered(DEPLOY / "overlays" / "gke-l4") if one["kind"] == "Application"]
    assert {one["spec"]["source"]["repoURL"] for one in applications} <= set(made["spec"]["sourceRepos"])
    assert made["spec"]["destinations"] == project["spec"]["destinations"]


def test_a_rendered_model_runs_without_a_gpu_by_the_component(server: ApiServer, tmp_path: Path) -> None:
    """The image by the digest that is known, nothing of a GPU left, and admitted as restricted."""
    model, component = tmp_path / "model", tmp_path / "cpu-engine"
    for path, text in render(desired(form="deployment", candidate=None, weight=0)).items():
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).write_text(text)
    component.mkdir()
    (component / "kustomization.yaml").write_text(
        (DEPLOY / "overlays/kind-cpu/cpu-engine/kustomization.yaml").read_text()
    )
    (tmp_path / "kustomization.yaml").write_text("resources: [model]\ncomponents: [cpu-engine]\n")
    ((_, engine),) = [one for one in pod_templates(rendered(tmp_path)) if "epp" not in one[0]]
    assert "nvidia" not in str(engine["spec"]["containers"]) and "nodeSelector" not in engine["spec"]
    image = engine["spec"]["containers"][0]["image"]
    assert image.startswith("vllm/vllm-openai-cpu") and image.endswith("844") and "@sha256:" in image
    answer = server.create_pod(server.namespace(RESTRICTED), engine)
    assert answer.status_code == 201, answer.text
