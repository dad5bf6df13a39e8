"""deploy/ on a real API server: kustomize's output, applied strictly server-side by the paths that the server itself names."""

from __future__ import annotations

import copy
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.fix_api_server import ApiServer, find_definition, find_program
from tests.fix_waiting import PATIENCE_SECONDS

DEPLOY = Path(__file__).parents[1] / "deploy"
OVERLAYS = ("generic", "gke-l4", "kind-cpu")
DEFINITIONS = (
    "kueue/localqueues.yaml", "kueue/clusterqueues.yaml", "kueue/resourceflavors.yaml", "kueue/workloadpriorityclasses.yaml",
    "external-secrets/externalsecrets.yaml", "external-secrets/clustersecretstores.yaml", "cloudnative-pg/clusters.yaml",
    "cloudnative-pg/databases.yaml", "argo-cd/applications.yaml", "argo-cd/appprojects.yaml",
)  # fmt: skip
Document = dict[str, Any]


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([find_program("kubectl"), "kustomize", folder], capture_output=True, text=True, check=True)
    return done.stdout


def rendered(folder: Path) -> list[Document]:
    """As `kubectl kustomize` writes them, the namespaces first."""
    documents: list[Document] = list(yaml.load_all(_rendered(folder), yaml.CSafeLoader))
    return sorted(documents, key=lambda one: one["kind"] != "Namespace")


class Objects:
    """Applies and reads objects of any kind. It asks the server for a group's resources once."""

    def __init__(self, server: ApiServer) -> None:
        self.client = server.client
        self._plurals: dict[str, dict[str, tuple[str, bool]]] = {}

    def define(self, *files: str) -> None:
        """CustomResourceDefinitions from the folder of schemas; returns when all are served."""
        names = [self._define(find_definition(file).read_text()) for file in files]
        deadline = time.monotonic() + PATIENCE_SECONDS
        for name in names:
            while not self._served(name):
                assert time.monotonic() < deadline, f"{name} is not established"
                time.sleep(0.1)
        self._plurals = {}

    def _define(self, text: str) -> str:
        """The server reads the YAML: parsing megabytes of it here would take longer than all the rest."""
        name = next(line.partition(": ")[2].strip() for line in text.splitlines() if line.startswith("  name: "))
        answer = self.client.patch(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}",
            params={"fieldManager": "test", "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
            content=text,
        )
        assert answer.status_code in (200, 201), answer.text
        return name

    def _served(self, name: str) -> bool:
        definition = self.client.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}").json()
        conditions = {one["type"]: one["status"] for one in definition.get("status", {}).get("conditions") or ()}
        spec = definition["spec"]
        served = next(one["name"] for one in spec["versions"] if one["storage"])
        path = f"/apis/{spec['group']}/{served}/{spec['names']['plural']}"
        return conditions.get("Established") == "True" and self.client.get(path).status_code == 200

    def path(self, document: Document) -> str:
        version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if kind not in self._plurals.get(root, {}):
            listed = self.client.get(root).json().get("resources", ())
            self._plurals[root] = {r["kind"]: (r["name"], r["namespaced"]) for r in listed if "/" not in r["name"]}
        plural, namespaced = self._plurals[root][kind]
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{root}{where}/{plural}/{metadata['name']}"

    def apply(self, document: Document, *, dry_run: bool = False) -> httpx.Response:
        """Strict: an unknown field is an error."""
        params = {"fieldManager": "test", "fieldValidation": "Strict", "force": "true"}
        return self.client.patch(
            self.path(document),
            params=params | ({"dryRun": "All"} if dry_run else {}),
            headers={"content-type": "application/apply-patch+yaml"},
            json=document,
        )

    def put(self, document: Document) -> None:
        answer = self.apply(document)
        assert answer.status_code in (200, 201), f"{document['kind']} {document['metadata']['name']}: {answer.text}"

    def status(self, document: Document, status: Document) -> None:
        """What a controller would write."""
        answer = self.client.patch(
            f"{self.path(document)}/status",
            headers={"content-type": "application/merge-patch+json"},
            json={"status": status},
        )
        assert answer.status_code == 200, answer.text


def pod_templates(documents: list[Document]) -> list[tuple[str, Document]]:
    """(owner's name, pod) of all workloads, each pod as its controller would create it."""
    found = []
    for document in documents:
        template = document.get("spec", {}).get("template")
        if document["kind"] in ("Deployment", "Job") and template:
            name = document["metadata"].get("name") or document["metadata"]["generateName"].rstrip("-")
            metadata = {"name": name, **copy.deepcopy(template.get("metadata", {}))}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}
            found.append((name, pod))
    return found
