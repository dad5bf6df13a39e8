"""deploy/rag on a real API server: schemas of the custom kinds, Pod Security restricted, and whom the pods may reach.

Without the programs or the definitions the tests are skipped, with the reason (tests/fix_api_server.py). NetworkPolicy is read
here, not enforced: no network runs.
"""

import copy
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_api_server import ApiServer, find_definition, find_program

FOLDER = Path(__file__).parents[1] / "deploy" / "rag"
DEFINITIONS = (
    "cloudnative-pg/clusters.yaml", "cloudnative-pg/databases.yaml", "cloudnative-pg/scheduledbackups.yaml",
    "external-secrets/externalsecrets.yaml",
)  # fmt: skip
CUSTOM = {
    "Cluster": "postgresql.cnpg.io/v1/namespaces/{}/clusters",
    "Database": "postgresql.cnpg.io/v1/namespaces/{}/databases",
    "ScheduledBackup": "postgresql.cnpg.io/v1/namespaces/{}/scheduledbackups",
    "ExternalSecret": "external-secrets.io/v1/namespaces/{}/externalsecrets",
    "NetworkPolicy": "networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "CronJob": "batch/v1/namespaces/{}/cronjobs",
    "Deployment": "apps/v1/namespaces/{}/deployments",
}
CORE = {"Service": "services", "ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims"}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """As kustomize renders them."""
    kubectl = find_program("kubectl")
    done = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> ApiServer:
    """With the definitions of the custom kinds."""
    for file in DEFINITIONS:
        definition = yaml.load(find_definition(file).read_text(), yaml.CSafeLoader)
        name = definition["metadata"]["name"]
        api_server.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", definition)
    for kind in ("Cluster", "Database", "ScheduledBackup", "ExternalSecret"):
        deadline = time.monotonic() + 60
        while api_server.client.get(f"/apis/{CUSTOM[kind].format('default')}").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    return api_server


def path_of(document: Document) -> str:
    kind, name, space = document["kind"], document["metadata"]["name"], document["metadata"].get("namespace")
    if kind == "Namespace":
        return f"/api/v1/namespaces/{name}"
    if kind in CORE:
        return f"/api/v1/namespaces/{space}/{CORE[kind]}/{name}"
    return f"/apis/{CUSTOM[kind].format(space)}/{name}"


def put(server: ApiServer, document: Document) -> tuple[int, str, str]:
    """Status, body and warnings of a strict server-side apply."""
    answer = server.client.patch(
        path_of(document),
        params={"fieldManager": "test", "fieldValidation": "Strict"},
        headers={"content-type": "application/apply-patch+yaml"},
        json=document,
    )
    return answer.status_code, answer.text, answer.headers.get("warning", "")


def templates(documents: list[Document]) -> list[Document]:
    found = []
    for document in documents:
        if document["kind"] == "Deployment":
            found.append(document["spec"]["template"])
        if document["kind"] == "CronJob":
            found.append(document["spec"]["jobTemplate"]["spec"]["template"])
    return found


def as_pod(template: Document) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "rag-", **template["metadata"]},
        "spec": template["spec"],
    }


def test_the_api_server_takes_every_document_without_a_warning(server: ApiServer, documents: list[Document]) -> None:
    assert {one["kind"] for one in documents} == {"Namespace", *CUSTOM, *CORE}
    for document in sorted(documents, key=lambda one: one["kind"] != "Namespace"):
        status, body, warning = put(server, document)
        assert status in (200, 201) and not warning, f"{document['kind']}: {status} {body} {warning}"


def test_the_pods_are_admitted_and_weaker_ones_are_not(server: ApiServer, documents: list[Document]) -> None:
    namespace = server.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    assert len(templates(documents)) == 2
    for template in templates(documents):
        pod = as_pod(template)
        answer = server.create_pod(namespace, pod)
        assert answer.status_code == 201, answer.text
        weaker = copy.deepcopy(pod)
        del weaker["spec"]["containers"][0]["securityContext"]["capabilities"]
        assert "violates PodSecurity" in server.create_pod(namespace, weaker).text


@pytest.mark.parametrize(
    ("kind", "where", "value", "message"),
    [
        ("Cluster", "instances", 0, "instances"),
        ("Database", "extensions", [{"ensure": "present"}], "name"),
        ("ScheduledBackup", "method", "tape", "method"),
    ],
)
def test_the_schemas_are_really_asked(
    server: ApiServer, documents: list[Document], kind: str, where: str, value: Any, message: str
) -> None:
    wrong = copy.deepcopy(next(one for one in documents if one["kind"] == kind))
    wrong["metadata"]["namespace"] = server.namespace({})
    wrong["spec"][where] = value
    status, body, _ = put(server, wrong)
    assert status in (400, 422) and message in body


def test_the_application_may_reach_dns_litellm_and_its_postgres_alone(documents: list[Document]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for template in templates(documents):
        labels = template["metadata"]["labels"]
        chosen = [p for p in policies.values() if p["podSelector"].get("matchLabels", {}).items() <= labels.items()]
        ports = {port["port"] for policy in chosen for rule in policy.get("egress", []) for port in rule["ports"]}
        assert ports == {53, 4000, 5432}
        assert all("to" in rule for policy in chosen for rule in policy.get("egress", []))


def test_images_are_pinned_and_secrets_come_from_the_store(documents: list[Document]) -> None:
    (cluster,) = [one for one in documents if one["kind"] == "Cluster"]
    assert re.fullmatch(r"ghcr\.io/cloudnative-pg/postgresql:[\w.-]+@sha256:[0-9a-f]{64}", cluster["spec"]["imageName"])
    assert not [one for one in documents if one["kind"] == "Secret"]


def test_the_settings_are_ones_that_the_program_knows(documents: list[Document]) -> None:
    from tasks.settings import Settings

    (settings,) = [one for one in documents if one["kind"] == "ConfigMap"]
    named = {*settings["data"]} | {
        env["name"] for t in templates(documents) for env in t["spec"]["containers"][0]["env"]
    }
    known = {f"LIFTLOCK_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in named if name.startswith("LIFTLOCK_")} <= known
