"""Trainings as Jobs by the real Kueue, scheduler and Job controller, with the real training code in each pod and a real MLflow.

Pods' containers are processes (fix_training_pods.py), the commands ask with the rights of flow-run, and the adapter's bytes are held to
those of a training that nothing interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from evals.suite import file_sha256
from serving.delivery.kube_api import KubeApi
from tasks.base_model import folder_sha256
from tasks.digests import adapter_sha256
from tasks.lora import LoraRequest, TrainingRefused
from tasks.settings import ROOT
from tasks.train_child import code_digest, train_in_child
from tasks.train_on_cluster import QueueTooSmall, Seat, Trained, train_on_cluster
from tasks.training_job import job_name, render_job
from tasks.training_order import Order
from tests.fix_cluster import Cluster
from tests.fix_deploy import Document
from tests.fix_queued import JOBS, until
from tests.fix_stack import SUITE
from tests.fix_tiny_training import LEARNED, STEPS, write_dialogs
from tests.fix_training_pods import Kubelet
from tests.fix_waiting import await_that
from tests.test_deploy_kueue import clear, done, runs, state, submit, waits
from tests.test_tasks_training_job import IMAGE, PLACE, POD

pytestmark = pytest.mark.slow(seconds=150)


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the adapter of a training here, without any checkpoint."""
    work = tmp_path_factory.mktemp("whole")
    request = LoraRequest(base=str(tiny_base), dialogs=str(write_dialogs(work)), out=str(work / "adapter"), **LEARNED)
    train_in_child(request, work, 600, lambda _: None)
    return adapter_sha256(work / "adapter")


class Trainings:
    """Commands that wait for their Jobs in threads, each with what it was told."""

    def __init__(self, kubeconfig: Path, mlflow: str, base: Path, folder: Path) -> None:
        self.folder, self.client = folder, MlflowClient(mlflow)
        self.api = KubeApi(kubeconfig=str(kubeconfig))
        dialogs, state = write_dialogs(folder), folder / "state"
        state.mkdir()
        base_sha256 = folder_sha256(base, state)
        self.order = Order(LEARNED, str(base), base_sha256, file_sha256(dialogs), code_digest(), 600)
        self.said: dict[str, list[str]] = {}
        self.steps: dict[str, list[int]] = {}
        self.pool = ThreadPoolExecutor()

    def train(self, model: str, *, fresh: bool = False, order: Order | None = None, **pod: Any) -> Trained:
        said, steps = self.said.setdefault(model, []), self.steps.setdefault(model, [])
        seat = Seat(self.api, PLACE, self.client, said.append, lambda point: steps.append(point.step), 0.2)
        out = self.folder / f"{model}-{len(list(self.folder.iterdir()))}"
        asked, dialogs = replace(POD, **pod), self.folder / "dialogs.jsonl"
        return train_on_cluster(seat, asked, model, self.key(model), order or self.order, dialogs, out, fresh=fresh)

    def start(self, model: str) -> Future[Trained]:
        return self.pool.submit(self.train, model)

    def key(self, model: str) -> str:
        return f"{model}-{self.folder.name}"[::-1]  # a Job's name has its beginning

    def job(self, model: str) -> str:
        return job_name(model, self.key(model))

    def sha256(self, model: str) -> str:
        (sha256,) = {
            adapter_sha256(one) for one in self.folder.glob(f"{model}-*") if (one / "adapter_config.json").exists()
        }
        return sha256

    def losses(self, run: str | None) -> list[int]:
        return [one.step for one in self.client.get_metric_history(str(run), "loss")]


@pytest.fixture
def trainings(kubelet: Kubelet, mlflow_server: str, tiny_base: Path, tmp_path: Path) -> Iterator[Trainings]:
    folder = tmp_path / "commands"
    folder.mkdir()
    made = Trainings(kubelet.kubeconfig, mlflow_server, tiny_base, folder)
    yield made
    clear(kubelet.cluster, *(one["metadata"]["name"] for one in kubelet.cluster.get(JOBS)["items"]))
    made.pool.shutdown()


ALL_STEPS = list(range(2, STEPS + 1, 2))


def test_two_trainings_and_one_l4_run_one_after_the_other(kubelet: Kubelet, trainings: Trainings, whole: str) -> None:
    first = trainings.start("first")
    await_that(lambda: kubelet.of(trainings.job("first")))
    second = trainings.start("second")
    runs = first.result().run, second.result().run
    (one,), (other,) = kubelet.of(trainings.job("first")), kubelet.of(trainings.job("second"))
    assert one.ended is not None and one.ended <= other.began
    assert any("waits in queue mlops-gpu: couldn't assign flavors" in words for words in trainings.said["second"])
    assert trainings.sha256("first") == trainings.sha256("second") == whole
    assert [trainings.losses(run) for run in runs] == [ALL_STEPS, ALL_STEPS]
    assert one.pod["spec"]["nodeName"] == other.pod["spec"]["nodeName"] == "l4-0"


def test_a_preempted_training_goes_on_from_its_checkpoint(kubelet: Kubelet, trainings: Trainings, whole: str) -> None:
    job = trainings.job("nightly")
    kubelet.pauses[job] = 10
    command = trainings.start("nightly")
    (before,) = await_that(lambda: kubelet.of(job))
    assert before.paused.wait(180), before.events
    submit(kubelet.cluster, "urgent", 1, priority="high-priority")
    until(lambda: state(kubelet.cluster, "urgent"), runs)
    assert waits(state(kubelet.cluster, job))
    until(lambda: state(kubelet.cluster, "urgent"), done)
    trained = command.result()
    _, after = kubelet.of(job)
    assert after.checkpoints[0] > before.checkpoints[-1] >= 10  # it did go on, from there
    assert any(words.startswith("preempted; it will go on") for words in trainings.said["nightly"])
    assert trainings.sha256("nightly") == whole
    assert trainings.losses(trained.run) == [point.step for point in trained.curve] == ALL_STEPS
    assert not list((kubelet.volume / "checkpoints").iterdir())  # and nothing is left of it


def test_a_quota_that_is_too_small_is_told_before_submission(kubelet: Kubelet, trainings: Trainings) -> None:
    with pytest.raises(QueueTooSmall, match=r"cpu 8 of flavor gpu-any, the training asks for 9.*Nothing was submitted"):
        trainings.train("greedy", cpu="9")
    assert not kubelet.cluster.get(JOBS)["items"]
    assert trainings.client.get_experiment_by_name("greedy") is None
    made = render_job(PLACE, replace(POD, cpu="9"), "greedy", trainings.key("greedy"), "none", "none")
    kubelet.cluster.api.client.post(JOBS, json=made).raise_for_status()  # Kueue says the same, and for ever
    workloads = "/apis/kueue.x-k8s.io/v1beta2/namespaces/mlops/workloads"
    conditions = await_that(lambda: [one for each in kubelet.cluster.get(workloads)["items"]
                                     for one in (each.get("status") or {}).get("conditions") or ()])  # fmt: skip
    assert "insufficient quota for cpu" in conditions[0]["message"]
    assert waits(state(kubelet.cluster, made["metadata"]["name"]))


def test_a_refusal_comes_back_in_words_and_the_next_command_makes_the_job_anew(
    kubelet: Kubelet, trainings: Trainings, whole: str
) -> None:
    """And what is trained already is fetched, with no Job at all."""
    with pytest.raises(TrainingRefused, match="other training code"):
        trainings.train("moved", order=replace(trainings.order, code="other"))
    trained = trainings.train("moved")
    assert trainings.sha256("moved") == whole
    clear(kubelet.cluster, trainings.job("moved"))
    assert trainings.train("moved") == trained
    assert len(kubelet.of(trainings.job("moved"))) == 2 and not kubelet.cluster.get(JOBS)["items"]


# --- the train stage, killed


class Stage:
    """tests/training_process.py on a spec with the sample's data and the tiny model."""

    def __init__(self, folder: Path, base: Path, where: str, **environment: str) -> None:
        folder.mkdir()
        self.spec = folder / "release.yaml"
        self.spec.write_text(f"""
name: killed
base_model: {base}
dataset: {{train: {SUITE}/data/train.jsonl, test: {SUITE}/data/test.jsonl, answer: team}}
training: {{r: 4, learning_rate: 0.003, num_train_epochs: 0.1, where: {where}}}
gate: {{task: {SUITE}/ticket_router.yaml, prompt: {SUITE}/prompt.yaml, margin: 0.5}}
""")
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(folder / "state"), "LIFTLOCK_TRAINING_IMAGE": IMAGE,
            "COLUMNS": "160", **environment,
        }  # fmt: skip

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.training_process", str(self.spec)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=self.environment, cwd=ROOT, text=True, **pipes)

    def run(self) -> tuple[dict[str, Any], str]:
        process = self.start()
        output, said = process.communicate()
        assert process.returncode == 0, said
        return json.loads(output.splitlines()[-1]), said


@contextmanager
def served_model(cluster: Cluster) -> Iterator[None]:
    """A pod that holds the one L4, outside of Kueue."""
    cluster.api.apply("/api/v1/namespaces/serving", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving"}})  # fmt: skip
    sizes = {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    pod: Document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "engine"}, "spec": {
        "containers": [{"name": "vllm", "image": "x", "resources": sizes}], "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }}  # fmt: skip
    pods = "/api/v1/namespaces/serving/pods"
    await_that(
        lambda: cluster.api.client.post(pods, json=pod).status_code == 201
    )  # the namespace's account comes first
    until(lambda: cluster.get(f"{pods}/engine")["status"], "Running")
    try:
        yield
    finally:
        cluster.api.client.request("DELETE", f"{pods}/engine", json={"gracePeriodSeconds": 0})


def test_a_killed_command_attaches_to_its_job_which_waited_for_a_served_model(
    kubelet: Kubelet, mlflow_server: str, tiny_base: Path, tmp_path: Path
) -> None:
    where = {"LIFTLOCK_MLFLOW_URI": mlflow_server, "MLFLOW_TRACKING_URI": mlflow_server}
    stage = Stage(tmp_path / "there", tiny_base, "kubernetes", KUBECONFIG=str(kubelet.kubeconfig), **where)
    with served_model(kubelet.cluster):
        process = stage.start()
        assert process.stderr is not None
        held = next((line for line in process.stderr if "nvidia.com/gpu is held by serving/engine on l4-0" in line), "")
        assert "waits for a node" in held
        process.send_signal(signal.SIGKILL)
        process.wait()
        (before,) = kubelet.cluster.get(JOBS)["items"]
    trained, said = stage.run()
    assert f"attached to Job {before['metadata']['name']}" in said
    (after,) = kubelet.cluster.get(JOBS)["items"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert len(kubelet.of(before["metadata"]["name"])) == 1
    client = MlflowClient(mlflow_server)
    (run,) = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    assert (run.info.run_id, run.info.status) == (trained["run"], "FINISHED")
    assert run.data.params["where"] == "kubernetes" and run.data.tags["liftlock.adapter_sha256"] == trained["sha256"]
    files = {one.path for one in client.list_artifacts(run.info.run_id, "adapter")}
    assert files == {"adapter/README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    clear(kubelet.cluster, before["metadata"]["name"])
    here, _ = Stage(tmp_path / "here", tiny_base, "local", **where).run()
    assert (here["sha256"], here["steps"]) == (trained["sha256"], trained["steps"])
