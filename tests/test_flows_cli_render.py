"""`liftlock render` as a user runs it: versions in a real MLflow, a base model on disk, and what `liftlock fit` says of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from serving.fit.stamp import ANNOTATION
from tasks.manifests import LEAST_STARTUP_SECONDS, gpu_label, startup_budget
from tests.fix_cluster import Cluster
from tests.fix_rendered import ENGINE

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.slow(seconds=80)  # each command imports MLflow's client


def test_champion_and_staging_become_a_canary_that_fit_stamps_the_same(
    released: Any, registered: str, tmp_path: Path
) -> None:
    done = released("render", "release.yaml", "--output", "out", "--weight", "10", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(each["version"], each["weight"]) for each in said["members"]] == [("3", 90), ("4", 10)]
    assert said["members"][0]["modelcar"] == f"registry.example.com/liftlock/{registered}@sha256:{'3' * 64}"
    workload = yaml.safe_load((tmp_path / "out" / f"{registered}-v4" / "workload.yaml").read_text())
    container = workload["spec"]["predictor"]["containers"][0]
    assert f"{registered}=/mnt/models/adapters/{registered}" in container["args"]
    assert container["startupProbe"]["failureThreshold"] == 100  # twice the 500 s that version 4 once took to be warm
    rendered = workload["spec"]["predictor"]["annotations"][ANNOTATION]
    checked = released("fit", "--manifests", "out", "--model-root", "models", "--stamp", "stamped", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    stamped = yaml.safe_load((tmp_path / "stamped" / f"{registered}-v4" / "workload.yaml").read_text())
    assert stamped["spec"]["predictor"]["annotations"][ANNOTATION] == rendered


def test_a_later_rendering_leaves_nothing_of_an_earlier_one(
    released: Any, registered: str, tmp_path: Path, mlflow_client: Any
) -> None:
    assert released("render", "release.yaml", "--output", "out").returncode == 0
    mlflow_client.set_registered_model_alias(registered, "champion", "4")
    done = released("render", "release.yaml", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "not held against a cluster" in done.stdout
    assert not (tmp_path / "out" / f"{registered}-v3").exists()
    assert (tmp_path / "out" / f"{registered}-v4" / "pool.yaml").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "out").mkdir() or (folder / "out" / "mine.txt").write_text("x"), "holds no kustomization of a model"),
        (lambda folder: (folder / "platform.yaml").write_text("engine: x\n"), "platform.yaml: "),
        (lambda folder: (folder / "platform.yaml").write_text(f"engine_image: {ENGINE}\npicker_image: epp:v1\n"), "pin it by digest"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(released: Any, tmp_path: Path, change: Any, words: str) -> None:
    change(tmp_path)
    done = released("render", "release.yaml", "--output", "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_registry_a_cluster_cannot_pull(released: Any) -> None:
    done = released("render", "release.yaml", "--output", "out", LIFTLOCK_REGISTRY="")
    assert done.returncode == 2
    assert "set LIFTLOCK_REGISTRY" in done.stderr


def test_no_cluster_is_told_and_nothing_is_written(released: Any, tmp_path: Path) -> None:
    done = released("render", "release.yaml", "--output", "out", "--cluster", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no cluster" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_room_of_a_real_cluster_decides(released: Any, tmp_path: Path, cluster: Cluster) -> None:
    """Four L4: a canary of two engines is written, one of eight is refused with every reason."""
    namespace = cluster.api.namespace({})
    spec = (tmp_path / "release.yaml").read_text()
    for replicas, code in ((1, 0), (4, 3)):
        asked = f"cluster: {{namespace: {namespace}, form: deployment, replicas: {replicas}}}"
        (tmp_path / "release.yaml").write_text(spec.replace("strategy: pool}", f"strategy: pool, {asked}}}"))
        arguments = ("render", "release.yaml", "--output", f"out-{replicas}", "--cluster")
        done = released(*arguments, KUBECONFIG=str(cluster.kubeconfig))
        assert done.returncode == code, done.stdout + done.stderr
    assert "need 8 GPUs together" in done.stderr
    assert "strategy adapter" in done.stderr
    assert (tmp_path / "out-1" / "kustomization.yaml").is_file()
    assert not (tmp_path / "out-4").exists()
    one = ("render", "release.yaml", "--output", "out-one", "--cluster", "--strategy", "adapter", "--json")
    (tmp_path / "release.yaml").write_text(
        (tmp_path / "release.yaml").read_text().replace("replicas: 4", "replicas: 1")
    )
    done = released(*one, KUBECONFIG=str(cluster.kubeconfig))
    assert json.loads(done.stdout)["notes"] == []  # a GPU is free for the second engine while it replaces the first


def test_the_startup_budget_is_twice_what_is_expected() -> None:
    assert startup_budget(0, None) == LEAST_STARTUP_SECONDS
    assert startup_budget(0, 451.0) == 910
    assert startup_budget(60_000_000_000, None) == 1040  # 120 s and 60 GB at 150 MB/s, twice


def test_the_gpus_label_is_gkes() -> None:
    assert [gpu_label(name) for name in ("nvidia-l4", "nvidia-a100-40gb", "nvidia-b200")] == [
        "nvidia-l4",
        "nvidia-tesla-a100",
        "nvidia-b200",
    ]
