"""`liftlock deliver` as a user runs it: versions in a real MLflow, the platform's repository behind a git daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_cluster import Cluster
from tests.fix_platform import PlatformRepository, git
from tests.fix_pods import running_gateway

pytestmark = pytest.mark.slow(seconds=70)  # each command imports MLflow's client
SETTINGS = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from tasks.artifacts import Dataset, ModelVersion, Split
from tasks.settings import get_settings
from tasks.spec import load_release
from tasks.stack.addresses import export_mlflow, mlflow_address
settings = get_settings()
export_mlflow(mlflow_address(settings))
spec = load_release(Path("release.yaml"), needed=("nothing",))
"""
ROLL_OUT = """
from serving.modelcar import Modelcar
from tasks.cluster_rollout import roll_out_on_cluster
from tasks.run import start_run
start_run(settings.state, Path("release.yaml"), spec.name, resume=False, fresh=True)
version = ModelVersion(spec.name, sys.argv[1], "", "", "")
digest = "sha256:" + sys.argv[1] * 64
modelcar = Modelcar(f"liftlock/model@{digest}", digest, (), 0, 0)
dataset = Dataset("tickets", "r", (Split("test", Path("data/test.jsonl"), "", 5),))
print(json.dumps(asdict(roll_out_on_cluster(settings, spec, version, modelcar, dataset))))
"""
GATEWAY = {"LIFTLOCK_CLUSTER_GATEWAY_URL": "http://127.0.0.1:9"}


def test_a_dry_run_prints_the_first_commit_and_pushes_nothing(
    released: Any, registered: str, platform_repository: PlatformRepository
) -> None:
    before = git(platform_repository.bare, "rev-parse", "main")
    settings = {"LIFTLOCK_PLATFORM_REPOSITORY": platform_repository.url, **GATEWAY}
    done = released("deliver", "release.yaml", "--dry-run", **settings)
    assert done.returncode == 0, done.stderr
    assert f"+++ b/serving/liftlock/{registered}/route.yaml" in done.stdout
    assert f"+    name: {registered}-v4" in done.stdout or f"{registered}-v4" in done.stdout
    assert git(platform_repository.bare, "rev-parse", "main") == before
    document = json.loads(released("deliver", "release.yaml", "--dry-run", "--json", **settings).stdout)
    assert document["target"] == "gitops" and document["diff"] == done.stdout


def test_what_is_missing_is_named_before_anything_is_done(released: Any, tmp_path: Path) -> None:
    unset = released("deliver", "release.yaml", "--dry-run")
    assert unset.returncode == 2 and "LIFTLOCK_CLUSTER_GATEWAY_URL" in unset.stderr
    nowhere = released("deliver", "release.yaml", "--dry-run", **GATEWAY)
    assert nowhere.returncode == 2 and "LIFTLOCK_PLATFORM_REPOSITORY" in nowhere.stderr
    settings = {"LIFTLOCK_PLATFORM_REPOSITORY": str(tmp_path / "none.git"), **GATEWAY}
    absent = released("deliver", "release.yaml", "--dry-run", **settings)
    assert absent.returncode == 2 and "cannot read branch main" in absent.stderr
    assert "Traceback" not in absent.stderr + nowhere.stderr + unset.stderr


def test_a_local_target_and_an_unknown_version_are_bad_input(released: Any, tmp_path: Path) -> None:
    spec = tmp_path / "release.yaml"
    spec.write_text(spec.read_text().replace("target: gitops", "target: local"))
    local = released("deliver", "release.yaml", "--dry-run", **GATEWAY)
    assert local.returncode == 2 and "--target gitops or kubernetes" in local.stderr
    unknown = released("deliver", "release.yaml", "--target", "gitops", "--version", "77", "--dry-run", **GATEWAY)
    assert unknown.returncode == 2 and "77" in unknown.stderr


@pytest.fixture
def on_cluster(released: Any, registered: str, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """The spec with target kubernetes in a namespace of its own, behind a gateway. The function runs a program there."""
    namespace = cluster.api.namespace({})
    spec, small = tmp_path / "release.yaml", "cpu: 500m, memory: 1Gi, shm: 256Mi"
    where = (
        f"target: kubernetes, max_first_token_ratio: 20, cluster: {{namespace: {namespace}, form: deployment, {small}}}"
    )
    spec.write_text(spec.read_text().replace("target: gitops", where))
    (tmp_path / "prompt.yaml").write_text('system: Name the team.\nuser: "{{ticket}}"\n')
    items = [{"id": str(number), "ticket": f"ticket {number}"} for number in range(5)]
    (tmp_path / "data" / "test.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    with running_gateway(cluster.api, namespace, registered) as (url, _):
        settings = {"LIFTLOCK_CLUSTER_GATEWAY_URL": url, "KUBECONFIG": str(cluster.kubeconfig)}

        def run(program: str, *arguments: str) -> tuple[Any, str]:
            return released(*arguments, program=SETTINGS + program, **settings), namespace

        yield run
    cluster.remove_namespace(namespace)


def pools(cluster: Cluster, namespace: str) -> list[str]:
    found = cluster.get(f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace}/inferencepools")["items"]
    return [each["metadata"]["name"] for each in found]


def test_a_release_with_a_clusters_target_goes_through_its_canary_there(
    on_cluster: Any, registered: str, cluster: Cluster
) -> None:
    for version, weights in (("3", [100]), ("4", [10, 50, 100])):
        done, namespace = on_cluster(ROLL_OUT, version)
        assert done.returncode == 0, done.stdout + done.stderr
        rollout = json.loads(done.stdout)
        assert rollout["outcome"] == "completed", rollout["reason"]
        assert [step["weight"] for step in rollout["steps"]] == weights
        assert pools(cluster, namespace) == [f"{registered}-v{version}"]
    assert rollout["target"] == "kubernetes" and rollout["previous"] == f"{registered}-v3"
    assert rollout["reference"] == f"liftlock/model@sha256:{'4' * 64}"
    assert "schedulable on" in done.stderr and "canary at 10 %" in done.stderr
