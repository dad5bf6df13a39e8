"""A flow's pod of deploy/ without a kubelet: its environment and its account's token, and nothing of a local stack beside it.

The environment is what deploy/ gives, with the addresses of the session's servers in place of the cluster's. The versions are real
ones: registered, built, signed and pushed by the tasks themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.modelcar.keys import ensure_key_pair
from tests.fix_cluster import Cluster
from tests.fix_complete_cluster import thing
from tests.fix_deploy import DEPLOY, Document, rendered
from tests.fix_envoy import free_ports
from tests.fix_fit import write_adapter, write_model
from tests.fix_platform import PlatformRepository
from tests.fix_pods import Pods, running_gateway
from tests.fix_rendered import ENGINE, PICKER, ROOT
from tests.test_deploy_prefect import SECRETS, pod_environment
from tests.test_deploy_release_rights import Place

APPLICATION = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/liftlock-models"
SPEC = """\
name: {name}
base_model: {base}
dataset: {{train: data/train.jsonl, test: data/test.jsonl}}
gate: {{task: task.yaml, prompt: prompt.yaml}}
modelcar: {{shell: false}}
delivery:
  target: {target}
  strategy: pool
  steps: [50, 100]
  max_first_token_ratio: 20
  cluster: {{namespace: {namespace}, form: deployment, cpu: 500m, memory: 1Gi, shm: 256Mi}}
"""
MAKE = """
import sys
from dataclasses import replace
from pathlib import Path
import mlflow
from serving.fit import EngineFlags, preflight
from tasks.build_and_push import build
from tasks.dataset import read_dataset
from tasks.digests import adapter_sha256
from tasks.register import register_version
from tasks.run import start_run
from tasks.settings import get_settings
from tasks.spec import load_release
from tests.fix_outcome import champion
spec, outcome = load_release(Path("release.yaml")), champion()
start_run(get_settings().state, Path("release.yaml"), spec.name, resume=False, fresh=True)
dataset, client, base = read_dataset(spec), mlflow.MlflowClient(), Path(spec.base_model)
for folder in sys.argv[1:]:
    splits = {f"liftlock.{split.name}_sha256": split.sha256 for split in dataset.splits}
    run = client.create_run("0", tags={"liftlock.base_sha256": "b" * 64, **splits}).info.run_id
    client.log_artifacts(run, folder, "adapter")
    adapter = replace(
        outcome.adapter, path=Path(folder), base=base, base_sha256="b" * 64, sha256=adapter_sha256(Path(folder)), run_id=run,
        dataset_revision=dataset.revision,
    )
    fit = preflight(base, Path(folder), gpu="nvidia-l4", flags=EngineFlags(max_model_len=256), engine_version="0.23.0")
    version = register_version(adapter, outcome.pair, outcome.decision, spec)
    build(version, adapter, outcome.pair, outcome.decision, fit, spec)
"""


@dataclass(frozen=True)
class Pod:
    """`place` has the account's rights; `environment` is all that its process gets besides the PATH."""

    model: str
    folder: Path
    place: Place
    pods: Pods
    environment: dict[str, str]

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *argv], cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`liftlock ARGUMENTS`."""
        process = self.start("-m", "flows.cli", *arguments)
        out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def make(self, *adapters: str) -> None:
        """One version of each folder; the last is at @staging."""
        process = self.start("-c", MAKE, *adapters)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err


@dataclass(frozen=True)
class Parts:
    """What a pod finds around it."""

    postgres: str
    mlflow: str
    registry: str
    cluster: Cluster
    repository: PlatformRepository


def running_pod(parts: Parts, target: str, folder: Path) -> Iterator[Pod]:
    """With two versions; the first one's number is 1."""
    folder.mkdir()
    place, model = Place(parts.cluster, folder), f"tickets-{target}"
    _application(place, parts)
    _files(folder, model, target, place.space)
    with running_gateway(parts.cluster.api, place.space, model) as (gateway, pods):
        pod = Pod(model, folder, place, pods, _environment(parts, place, folder, gateway))
        pod.make("one", "two")
        yield pod
    parts.cluster.api.client.delete(APPLICATION)
    parts.cluster.remove_namespace(place.space)


def _application(place: Place, parts: Parts) -> None:
    """That of deploy/argocd, with the Role beside it."""
    place.objects.put(thing("v1", "Namespace", "argocd"))
    for one in rendered(DEPLOY / "argocd"):
        if one["metadata"]["name"] == "liftlock-models":
            place.objects.put(_pointed(one, place.space, parts.repository.url))
        elif one["kind"] != "Application":
            place.objects.put(one)


def _pointed(application: Document, namespace: str, url: str) -> Document:
    spec = application["spec"]
    return {**application, "spec": {
        **spec, "project": "default", "source": {**spec["source"], "repoURL": url},
        "destination": {**spec["destination"], "namespace": namespace},
    }}  # fmt: skip


def _files(folder: Path, model: str, target: str, namespace: str) -> None:
    base = write_model(folder / "base")
    for name, rank in (("one", 4), ("two", 8)):
        write_adapter(folder / name, r=rank, base="base")
    (folder / "data").mkdir()
    for name, first in (("train", 0), ("test", 100)):
        items = [{"id": str(n), "ticket": f"ticket {n}", "answer": "billing"} for n in range(first, first + 5)]
        (folder / "data" / f"{name}.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    (folder / "task.yaml").write_text("task: tickets\n")
    (folder / "prompt.yaml").write_text('system: Name the team.\nuser: "{{ticket}}"\n')
    spec = SPEC.format(name=model, base=base, target=target, namespace=namespace)
    (folder / "release.yaml").write_text(spec)
    (folder / "platform.yaml").write_text(f"engine_image: {ENGINE}\npicker_image: {PICKER}\n")
    ensure_key_pair(folder / "signing")


def _environment(parts: Parts, place: Place, folder: Path, gateway: str) -> dict[str, str]:
    given, nobody = (
        pod_environment(SECRETS),
        f"http://127.0.0.1:{free_ports(1)[0]}/api",
    )  # Prefect is down: events are told later
    moved = {
        "LIFTLOCK_STATE": f"{folder}/state", "LIFTLOCK_POSTGRES_DSN": parts.postgres,
        "LIFTLOCK_MLFLOW_URI": parts.mlflow, "MLFLOW_TRACKING_URI": parts.mlflow, "LIFTLOCK_REGISTRY": parts.registry,
        "LIFTLOCK_PREFECT_API_URL": nobody, "PREFECT_API_URL": nobody, "HOME": str(folder),
        "LIFTLOCK_SIGNING_KEY": f"{folder}/signing.key", "LIFTLOCK_CLUSTER_GATEWAY_URL": gateway,
    }  # fmt: skip
    assert set(moved) <= set(given)  # a pod gets each of them
    beside: dict[str, Any] = {
        "LIFTLOCK_PLATFORM_REPOSITORY": parts.repository.url, "LIFTLOCK_PLATFORM": f"{folder}/platform.yaml",
        "KUBECONFIG": str(place.kubeconfig), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PGUSER": "", "PGPASSWORD": "",
    }  # fmt: skip
    return {**given, **moved, **beside}
