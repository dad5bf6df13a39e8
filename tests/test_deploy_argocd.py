"""deploy/overlays/gke-l4 synced by the real Argo CD from a Git daemon: its waves wait for one another, and it ends Healthy.

The operators' words are the test's: External Secrets and CloudNativePG do not run, so their statuses are written here, and
Argo CD's own health checks judge them. Kueue and the scheduler are in test_deploy_kueue.py.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.fix_cluster import Cluster
from tests.fix_complete_cluster import conditions, own_values, thing
from tests.fix_deploy import DEFINITIONS, Document, Objects, rendered
from tests.fix_platform import PlatformRepository
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow(seconds=65)
SECONDS = 120
APPLICATIONS = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"


def pushed(repository: PlatformRepository, folder: Path) -> list[Document]:
    """The overlay with values of one's own, in a repository that Argo CD can read; what it renders to."""
    overlay = own_values(folder)
    for path in overlay.glob("*.yaml"):
        path.write_text(path.read_text().replace("https://git.acme.dev/liftlock.git", repository.url))
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "-q", repository.url, checkout], check=True)
    shutil.copytree(folder / "deploy", checkout / "deploy", dirs_exist_ok=True)
    git = ["git", "-C", str(checkout), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["add", "-A"], ["commit", "-qm", "Liftlock"], ["push", "-q", "origin", "HEAD:main"]):
        subprocess.run([*git, *command], check=True)
    return rendered(overlay)


def test_the_overlay_is_synced_in_waves_and_ends_healthy(
    argocd: Cluster, platform_repository: PlatformRepository, tmp_path: Path
) -> None:
    objects, client = Objects(argocd.api), argocd.api.client
    objects.define(*[file for file in DEFINITIONS if not file.startswith("argo-cd")])
    for name in ("serving", "inference"):
        objects.put(thing("v1", "Namespace", name))
    documents = pushed(platform_repository, tmp_path)
    found = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    project = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
               "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}  # fmt: skip
    objects.put(thing("argoproj.io/v1alpha1", "AppProject", "platform", "argocd", spec=project))
    objects.put(found["Application", "liftlock"])

    def there(kind: str, name: str) -> bool:
        return client.get(objects.path(found[kind, name])).status_code == 200

    def state() -> Document:
        status: Document = client.get(f"{APPLICATIONS}/liftlock").json().get("status", {})
        return status

    def ended(name: str) -> bool:
        status = client.get(f"{APPLICATIONS}/{name}").json().get("status", {})
        words = [(status.get(one) or {}).get("status") for one in ("sync", "health")]
        return words == ["Synced", "Healthy"] and status.get("operationState", {}).get("phase") == "Succeeded"

    def operation() -> Document:
        running: Document = state().get("operationState") or {}
        return running

    await_that(lambda: there("ExternalSecret", "liftlock-secrets"), SECONDS, state)
    assert not there("Cluster", "liftlock-pg")  # wave 1 waits for the secrets of wave 0
    for name in ("liftlock-secrets", "liftlock-signing"):
        await_that(lambda name=name: there("ExternalSecret", name), SECONDS, state)
        objects.status(found["ExternalSecret", name], conditions("Ready"))
    await_that(lambda: there("Cluster", "liftlock-pg"), SECONDS, state)
    time.sleep(3)
    assert not there("Deployment", "mlflow") and not there("Deployment", "prefect-server")
    healthy = {"phase": "Cluster in healthy state", "instances": 1, "readyInstances": 1, **conditions("Ready")}
    objects.status(found["Cluster", "liftlock-pg"], healthy)
    await_that(lambda: there("Database", "mlflow"), SECONDS, state)
    for name in ("mlflow", "prefect"):
        objects.status(found["Database", name], {"applied": True, "observedGeneration": 1})
    await_that(lambda: operation().get("phase") == "Succeeded", SECONDS, lambda: operation().get("message"))
    await_that(
        lambda: (state()["sync"]["status"], state()["health"]["status"]) == ("Synced", "Healthy"), SECONDS, state
    )
    await_that(lambda: ended("liftlock-state"), SECONDS, lambda: client.get(f"{APPLICATIONS}/liftlock-state").text)
    claim = client.get("/api/v1/namespaces/mlops/persistentvolumeclaims/liftlock-state").json()
    assert claim["status"]["phase"] == "Pending"  # bound by the first Job; Argo CD does not wait for it
