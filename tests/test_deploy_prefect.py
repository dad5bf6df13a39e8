"""The work pool's Job and the worker's rights, judged by a real API server: restricted pods, Kueue's queue, least privilege."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.templating import apply_values
from ruamel.yaml import YAML

from tasks.settings import Settings
from tasks.stack.addresses import StackDown, addresses
from tests.fix_api_server import ApiServer

FOLDER = Path(__file__).parents[1] / "deploy" / "prefect"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
G2_STANDARD_4 = {"cpu": 3.92, "memory": 13.0, "nvidia.com/gpu": 1}  # what such a node has to give; GiB
QUEUE = "kueue.x-k8s.io/queue-name"
WORKER = "prefect-worker"


def documents(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text()))


def job(**values: Any) -> dict[str, Any]:
    """As a worker renders it: the template's defaults, what a deployment sets, and what Prefect adds."""
    template = json.loads((FOLDER / "job-template.json").read_text())
    known = {name: one.get("default") for name, one in template["variables"]["properties"].items()}
    given = {"name": "release-otter", "env": [{"name": "PREFECT__FLOW_RUN_ID", "value": "x"}], "labels": {},
             "command": ["prefect", "flow-run", "execute"]}  # fmt: skip
    made: dict[str, Any] = apply_values(template["job_configuration"]["job_manifest"], {**known, **given, **values})
    return made


def create(server: ApiServer, namespace: str, manifest: dict[str, Any]) -> Any:
    placed = copy.deepcopy(manifest)
    placed["metadata"]["namespace"] = namespace
    return server.client.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", params={"dryRun": "All"}, json=placed)


def pod_of(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    template = copy.deepcopy(manifest["spec"]["template"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        **template,
        "metadata": {**template["metadata"], "name": "flow", "namespace": namespace},
    }


def test_the_job_is_valid_and_its_pod_is_admitted_where_only_restricted_ones_are(api_server: ApiServer) -> None:
    namespace = api_server.namespace(RESTRICTED)
    answer = create(api_server, namespace, job())
    assert answer.status_code == 201, answer.text
    assert "Warning" not in answer.headers, answer.headers["Warning"]
    answer = api_server.create_pod(namespace, pod_of(job(), namespace))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("field", ["runAsNonRoot", "seccompProfile"])
def test_the_same_pod_with_less_care_is_refused(api_server: ApiServer, field: str) -> None:
    """So the admission above says something."""
    namespace = api_server.namespace(RESTRICTED)
    pod = pod_of(job(), namespace)
    del pod["spec"]["securityContext"][field]
    answer = api_server.create_pod(namespace, pod)
    assert (answer.status_code, field in answer.text) == (403, True), answer.text


def test_job_and_pod_stand_in_kueues_queue_and_fit_a_g2_standard_4() -> None:
    made = job(queue="training")
    template = made["spec"]["template"]
    assert made["metadata"]["labels"][QUEUE] == template["metadata"]["labels"][QUEUE] == "training"
    (container,) = template["spec"]["containers"]
    asked = container["resources"]["requests"]
    assert float(asked["cpu"]) < G2_STANDARD_4["cpu"]
    assert float(asked["memory"].removesuffix("Gi")) < G2_STANDARD_4["memory"]
    assert asked["nvidia.com/gpu"] == container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low-priority"
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    assert "persistentVolumeClaim" in volumes["state"]  # what a preempted training goes on from
    assert made["spec"]["backoffLimit"] == 0  # Prefect retries, by the error's type


def pod_environment(secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """What a flow's process finds: the settings of deploy/mlops, the secrets by name, and the template's own, `$(NAME)` replaced as
    the kubelet does, by what stands before.
    """
    (settings,) = YAML(typ="safe").load_all((FOLDER.parent / "mlops" / "settings.yaml").read_text())
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    found: dict[str, str] = dict(settings["data"])
    for source in container["envFrom"]:
        found |= secrets.get(source.get("secretRef", {}).get("name", ""), {})
    for one in container["env"]:
        if "valueFrom" in one:
            reference = one["valueFrom"]["secretKeyRef"]
            found[one["name"]] = secrets[reference["name"]][reference["key"]]
        else:
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], one["value"])
    return found


SECRETS = {
    "liftlock-pg-app": {"username": "liftlock", "password": "secret"},
    "liftlock-secrets": {"LIFTLOCK_API_KEY": "k"},
}


def test_a_flows_pod_knows_its_database_registry_and_prefect_and_has_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in pod_environment(SECRETS).items():
        monkeypatch.setenv(name, value)
    where = addresses(Settings())
    assert where.dsn("liftlock") == "postgresql://liftlock:secret@liftlock-pg-rw:5432/liftlock"
    assert where.mlflow == "http://mlflow.mlops.svc:5000"
    assert where.prefect_api == "http://prefect-server.mlops.svc:4200/api"
    for part in ("vllm", "gateway", "gateway_admin"):
        with pytest.raises(StackDown, match="has no address"):
            getattr(where, part)


def test_a_flow_writes_only_into_the_volumes_of_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the hub is fetched into the models folder; the image is read-only."""
    for name, value in pod_environment(SECRETS).items():
        monkeypatch.setenv(name, value)
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    writable = [Path(each["mountPath"]) for each in container["volumeMounts"] if not each.get("readOnly")]
    written = Settings().state, Settings().models, Path(os.environ["HOME"]), Path(os.environ["PREFECT_HOME"])
    for folder in written:
        assert any(folder.is_relative_to(each) for each in writable), folder


def allowed(
    server: ApiServer, namespace: str, verb: str, resource: str, group: str = "", where: str | None = None
) -> bool:
    name, _, sub = resource.partition("/")
    attributes = {"namespace": where or namespace, "verb": verb, "resource": name, "group": group, "subresource": sub}
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{namespace}:{WORKER}", "resourceAttributes": attributes},
    }  # fmt: skip
    answer = server.client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    return bool(answer.json()["status"]["allowed"])


def test_the_worker_may_do_what_it_needs_and_nothing_else(api_server: ApiServer) -> None:
    namespace = api_server.namespace({})
    places = {
        "ServiceAccount": "/api/v1",
        "Role": "/apis/rbac.authorization.k8s.io/v1",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1",
    }
    for document in documents("rbac.yaml"):
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
        kind = document["kind"]
        api_server.apply(
            f"{places[kind]}/namespaces/{namespace}/{kind.lower()}s/{document['metadata']['name']}", document
        )
    for verb in ("create", "get", "list", "watch", "delete"):
        assert allowed(api_server, namespace, verb, "jobs", "batch"), verb
    assert allowed(api_server, namespace, "get", "pods/log")
    assert allowed(api_server, namespace, "watch", "pods")
    other = api_server.namespace({})
    refused = [("get", "secrets", ""), ("create", "pods", ""), ("create", "pods/exec", ""), ("delete", "pods", ""),
               ("patch", "jobs", "batch"), ("create", "rolebindings", "rbac.authorization.k8s.io"),
               ("create", "serviceaccounts/token", "")]  # fmt: skip
    for verb, resource, group in refused:
        assert not allowed(api_server, namespace, verb, resource, group), (verb, resource)
    assert not allowed(api_server, namespace, "create", "jobs", "batch", other)


def test_the_workers_own_pod_is_admitted_too(api_server: ApiServer) -> None:
    namespace = api_server.namespace(RESTRICTED)
    (worker,) = documents("worker.yaml")
    answer = api_server.create_pod(namespace, pod_of(worker, namespace))
    assert answer.status_code == 201, answer.text
