"""`liftlock deliver`, `rollback` and `rollout abort` as a flow's pod runs them: the environment and the rights of deploy/, and no local stack.

Real parts: API server, scheduler, Argo CD, Git server, MLflow, Postgres and registry; the engines answer at once, and Prefect is down.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from mlflow import MlflowClient

from serving.rollout.kept import Rollouts
from tests.fix_cluster import Cluster
from tests.fix_platform import PlatformRepository
from tests.fix_pod import Parts, Pod, running_pod
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow(seconds=190)  # each command imports MLflow's client, and each delivery is a canary
NEEDS = {"kubernetes": ("patch", "httproutes"), "gitops": ("patch", "applications")}


@pytest.fixture
def parts(
    postgres_dsn: str, mlflow_server: str, registry: str, argocd: Cluster, platform_repository: PlatformRepository
) -> Iterator[Parts]:
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE liftlock")  # the name in deploy/
        yield Parts(postgres_dsn.rpartition("/")[0], mlflow_server, registry, argocd, platform_repository)
        admin.execute("DROP DATABASE liftlock WITH (FORCE)")


@pytest.fixture(params=["kubernetes", "gitops"])
def pod(request: pytest.FixtureRequest, parts: Parts, tmp_path: Path) -> Iterator[Pod]:
    yield from running_pod(parts, request.param, tmp_path / "pod")


def champion(pod: Pod) -> str:
    client = MlflowClient(pod.environment["LIFTLOCK_MLFLOW_URI"])
    return str(client.get_model_version_by_alias(pod.model, "champion").version)


def served(pod: Pod) -> list[str]:
    space = pod.place.space
    found = pod.pods.api.client.get(f"/apis/inference.networking.k8s.io/v1/namespaces/{space}/inferencepools").json()
    return [one["metadata"]["name"] for one in found["items"]]


def runs_the_registrys_image(pod: Pod, version: str) -> bool:
    """The version's engine mounts the modelcar's digest that its tag names."""
    client, space = MlflowClient(pod.environment["LIFTLOCK_MLFLOW_URI"]), pod.place.space
    found = pod.pods.api.client.get(f"/apis/apps/v1/namespaces/{space}/deployments/{pod.model}-v{version}").json()
    mounted = [one.get("image", {}).get("reference", "") for one in found["spec"]["template"]["spec"]["volumes"]]
    digest = client.get_model_version(pod.model, version).tags["liftlock.modelcar"].rpartition("@")[2]
    return any(one.endswith(f"@{digest}") for one in mounted)


def begun(pod: Pod) -> None:
    """A delivery of version 2 that is killed in the middle of its canary."""
    rollouts = Rollouts(Path(pod.environment["LIFTLOCK_STATE"]) / "rollouts" / pod.model)
    before = len(rollouts.all())
    process = pod.start("-m", "flows.cli", "deliver", "release.yaml", "--version", "2")
    try:
        await_that(
            lambda: len(rollouts.all()) > before and rollouts.all()[-1].state.phase == "watching",
            why=lambda: f"no canary {process.poll()}",
        )
    finally:
        process.kill()
        process.communicate()


def test_every_command_runs_under_the_rights_of_deploy_and_one_verb_less_stops_it(pod: Pod) -> None:
    target = pod.model.removeprefix("tickets-")
    first = pod.run("deliver", "release.yaml", "--version", "1")
    assert (first.returncode, champion(pod), served(pod)) == (0, "1", [f"{pod.model}-v1"]), first.stderr
    second = pod.run("deliver", "release.yaml")
    assert (second.returncode, champion(pod), served(pod)) == (0, "2", [f"{pod.model}-v2"]), second.stderr
    assert "canary at 50 %" in second.stderr and "canary at 100 %" in second.stderr

    verb, resource = NEEDS[target]
    pod.place.without(verb, resource)
    refused = pod.run("rollback", pod.model)
    assert refused.returncode != 0 and f'cannot {verb} resource "{resource}"' in refused.stderr, refused.stderr
    assert champion(pod) == "2" and "Traceback" not in refused.stderr
    pod.place.allow()
    back = pod.run("rollback", pod.model)
    assert (back.returncode, champion(pod), served(pod)) == (0, "1", [f"{pod.model}-v1"]), back.stderr
    assert runs_the_registrys_image(pod, "1")

    begun(pod)
    pod.place.without(verb, resource)
    kept = pod.run("rollout", "abort", pod.model)
    assert kept.returncode != 0 and f'cannot {verb} resource "{resource}"' in kept.stderr, kept.stderr
    pod.place.allow()
    aborted = pod.run("rollout", "abort", pod.model)
    assert (aborted.returncode, champion(pod), served(pod)) == (0, "1", [f"{pod.model}-v1"]), aborted.stderr
    assert "undone" in aborted.stdout
