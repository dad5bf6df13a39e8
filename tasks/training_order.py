"""What passes between a release and the pod that trains for it, through one MLflow run: the order and its dialogs there, the
loss and the adapter back. Both reach MLflow already, and a preempted pod's log is gone while the run stays.

The run's tags say how far it is: PROGRESS (JSON of a step), FAILED or REFUSED (words), RESULT (the adapter's sha256, set last).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from evals.suite import file_sha256
from tasks.digests import ADAPTER_FILES, adapter_sha256
from tasks.lora import TrainingPoint

FOLDER, ADAPTER, ORDER, DIALOGS, CURVE = "training", "adapter", "order.json", "dialogs.jsonl", "curve.json"
KEY, PROGRESS, RESULT = "liftlock.training_key", "liftlock.training_progress", "liftlock.training_result"
FAILED, REFUSED = "liftlock.training_failed", "liftlock.training_refused"
TAG_LENGTH = 5000  # MLflow's limit


class OrderRefused(Exception):
    """What came is not what was sent."""


@dataclass(frozen=True)
class Order:
    """`request` is a LoraRequest without its paths; `code` the digest of the code that shall train."""

    request: dict[str, Any]
    base_model: str
    base_sha256: str
    dialogs_sha256: str
    code: str
    timeout_seconds: int

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()


def loss_metric(point: TrainingPoint) -> Metric:
    """Its time is the one since the training began."""
    return Metric("loss", point.loss, int(point.seconds * 1000), point.step)


def find_run(client: MlflowClient, model: str, key: str, *, fresh: bool) -> str | None:
    """The id of the run that this training has. With `fresh` none, and one that is not finished is given up."""
    found = client.get_experiment_by_name(model)
    if found is None:
        return None
    wanted = f"tags.`{KEY}` = '{key}' and attributes.status != 'KILLED'"
    runs = client.search_runs([found.experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    if runs and fresh and runs[0].info.status == "RUNNING":
        client.set_terminated(runs[0].info.run_id, "KILLED")
    return str(runs[0].info.run_id) if runs and not fresh else None


def new_run(client: MlflowClient, model: str, digest: str, tags: dict[str, str] | None = None) -> str:
    """The id of a run in the model's experiment; `digest` gives it its name."""
    found = client.get_experiment_by_name(model)
    experiment = found.experiment_id if found else client.create_experiment(model)
    return str(client.create_run(experiment, run_name=f"train {digest[:8]}", tags=tags).info.run_id)


def send_order(client: MlflowClient, run: str, order: Order, dialogs: Path) -> None:
    """What an earlier attempt said is taken back."""
    tags = client.get_run(run).data.tags
    for tag in (FAILED, REFUSED):
        if tag in tags:
            client.delete_tag(run, tag)
    client.log_artifact(run, str(dialogs), FOLDER)
    client.log_text(run, order.text(), f"{FOLDER}/{ORDER}")


def fetch_order(client: MlflowClient, run: str, sha256: str, into: Path) -> tuple[Order, Path]:
    """(order, dialogs). Raises OrderRefused, MlflowException."""
    folder = Path(client.download_artifacts(run, FOLDER, str(into)))
    order = Order(**json.loads((folder / ORDER).read_text()))
    for observed, required, what in (
        (order.sha256, sha256, ORDER),
        (file_sha256(folder / DIALOGS), order.dialogs_sha256, DIALOGS),
    ):
        if observed != required:
            raise OrderRefused(
                f"{what} of MLflow run {run} has sha256 {observed[:16]}, required {required[:16]}; run the release again"
            )
    return order, folder / DIALOGS


def send_result(client: MlflowClient, run: str, adapter: Path, curve: tuple[TrainingPoint, ...]) -> None:
    for name in ADAPTER_FILES:
        client.log_artifact(run, str(adapter / name), ADAPTER)
    client.log_text(run, json.dumps([asdict(point) for point in curve]), f"{FOLDER}/{CURVE}")
    client.set_tag(run, RESULT, adapter_sha256(adapter))


def fetch_result(client: MlflowClient, run: str, into: Path) -> tuple[TrainingPoint, ...]:
    """The curve; the adapter's files lie in `into`. Raises OrderRefused, MlflowException."""
    required = client.get_run(run).data.tags[RESULT]
    into.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        for name in ADAPTER_FILES:
            Path(client.download_artifacts(run, f"{ADAPTER}/{name}", folder)).replace(into / name)
        curve = json.loads(Path(client.download_artifacts(run, f"{FOLDER}/{CURVE}", folder)).read_text())
    if (observed := adapter_sha256(into)) != required:
        raise OrderRefused(
            f"the adapter of MLflow run {run} has sha256 {observed[:16]}, the pod sent {required[:16]}; run it with --fresh"
        )
    return tuple(TrainingPoint(**point) for point in curve)


def say(client: MlflowClient, run: str, tag: str, words: str) -> None:
    """What cannot be said does not end a training."""
    try:
        client.set_tag(run, tag, words[:TAG_LENGTH])
    except MlflowException as error:
        print(json.dumps({"event": "unsaid", "tag": tag, "reason": str(error)[:300]}), flush=True)
