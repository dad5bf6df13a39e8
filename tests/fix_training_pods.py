"""The containers of training pods as processes of this machine: the rendered command and environment, the volume a folder.

kwok plays the rest of the kubelet. A pod that is bound and Running gets its process, an ended process ends its pod, and a pod that is
taken away loses it. What a container runtime would do besides (image, users, limits) is not there.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fix_cluster import Cluster
from tests.fix_queued import PODS

ROOT = Path(__file__).resolve().parent.parent
LOOK_SECONDS = 0.1
ACCOUNTS = "/api/v1/namespaces/mlops/serviceaccounts"
MERGE = {"content-type": "application/merge-patch+json"}
TRAININGS = f"{PODS}?labelSelector=app.kubernetes.io/component=training"
Object = dict[str, Any]


@dataclass
class Container:
    """`events` are the lines that its log would have. At the checkpoint of step `pause` it is stopped, for a test to take it away."""

    pod: Object
    process: subprocess.Popen[str]
    pause: int | None
    events: list[Object] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    paused: threading.Event = field(default_factory=threading.Event)

    @property
    def job(self) -> str:
        return str(self.pod["metadata"]["labels"]["job-name"])

    def read(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{"):
                self.events.append(json.loads(line))
            if self.pause is not None and self.checkpoints[-1:] >= [self.pause] and not self.paused.is_set():
                self._signal(signal.SIGSTOP)
                self.paused.set()

    @property
    def checkpoints(self) -> list[int]:
        return [one["step"] for one in self.events if one["event"] == "checkpoint"]

    def end(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self._signal(how)
        self.process.wait()
        self.ended = time.monotonic()

    def _signal(self, number: signal.Signals) -> None:
        """SIGTERM for the container's first process, as a kubelet sends it; the others for all."""
        first = psutil.Process(self.process.pid)
        every = [first] if number == signal.SIGTERM else [first, *first.children(recursive=True)]
        for one in every:
            one.send_signal(number)


@dataclass
class Kubelet:
    """`pauses` by Job: the step at whose checkpoint its first container is paused."""

    cluster: Cluster
    volume: Path
    pauses: dict[str, int] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)  # by the pod's uid
    stopped: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def kubeconfig(self) -> Path:
        """Of the account flow-run, with no more rights than deploy/ gives it."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = self.cluster.api.client.post(f"{ACCOUNTS}/flow-run/token", json=request)
        config = json.loads(self.cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
        path = self.volume.parent / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def of(self, job: str) -> list[Container]:
        return [one for one in self.containers.values() if one.job == job]

    def follow(self) -> None:
        while not self.stopped.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        pods = {one["metadata"]["uid"]: one for one in self.cluster.get(TRAININGS)["items"]}
        for uid, container in self.containers.items():
            if container.ended is not None:
                continue
            if uid not in pods or "deletionTimestamp" in pods[uid]["metadata"]:
                container.end(signal.SIGKILL if container.paused.is_set() else signal.SIGTERM)
            elif (code := container.process.poll()) is not None:
                container.ended = time.monotonic()
                self._end(container.pod, code)
        for uid, pod in pods.items():
            if uid not in self.containers and pod["status"].get("phase") == "Running":
                self.containers[uid] = self._start(pod)

    def _start(self, pod: Object) -> Container:
        (asked,) = pod["spec"]["containers"]
        (mounted,) = [one["mountPath"] for one in asked["volumeMounts"] if one["name"] == "training"]
        (reference,) = asked["envFrom"]
        name = reference["configMapRef"]["name"]
        values: dict[str, str] = self.cluster.get(f"/api/v1/namespaces/mlops/configmaps/{name}")["data"]
        values |= {one["name"]: one["value"].replace(mounted, str(self.volume)) for one in asked["env"]}
        assert asked["command"][0] == "python"
        process = subprocess.Popen(
            [sys.executable, *asked["command"][1:]], env={**values, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            cwd=self.volume, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        job = pod["metadata"]["labels"]["job-name"]
        container = Container(pod, process, self.pauses.pop(job, None))
        threading.Thread(target=container.read, daemon=True).start()
        return container

    def _end(self, pod: Object, code: int) -> None:
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        status = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [
                {"name": "training", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
            ],
        }  # fmt: skip
        path = f"{PODS}/{pod['metadata']['name']}/status"
        self.cluster.api.client.patch(path, json={"status": status}, headers=MERGE).raise_for_status()

    def close(self) -> None:
        for container in self.containers.values():
            if container.ended is None:
                container.end(signal.SIGKILL)


@pytest.fixture
def kubelet(queued: Cluster, mlflow_server: str, tiny_base: Path, tmp_path: Path) -> Iterator[Kubelet]:
    """With an empty volume that has the tiny model, and MLflow's address in the settings of the pods."""
    volume = tmp_path / "volume"
    (volume / "models").mkdir(parents=True)
    (volume / "models" / "tiny").symlink_to(tiny_base)
    settings = {"data": {"LIFTLOCK_MLFLOW_URI": mlflow_server}}
    path = "/api/v1/namespaces/mlops/configmaps/liftlock-settings"
    queued.api.client.patch(path, json=settings, headers=MERGE).raise_for_status()
    made = Kubelet(queued, volume)
    thread = threading.Thread(target=made.follow, daemon=True)
    thread.start()
    yield made
    made.stopped.set()
    thread.join()
    made.close()
