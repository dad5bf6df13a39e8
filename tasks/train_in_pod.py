"""The pod of a training: `python -m tasks.train_in_pod RUN ORDER_SHA256`, with RUN of MLflow. See tasks/training_job.py.

It works in the volume (LIFTLOCK_STATE), so the pod after it finds checkpoint, base model, and an adapter that was not sent yet.
It ends with 0 when the adapter is in MLflow, else with 1 and the reason in the run's tags.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from tasks.base_model import BaseModelRefused, folder_sha256, resolve_base
from tasks.child import ChildFailed, Event
from tasks.lora import LoraRequest, TrainingPoint, TrainingRefused
from tasks.settings import Settings, get_settings
from tasks.train_child import code_digest, point_of, train_in_child
from tasks.training_order import (
    CURVE,
    FAILED,
    PROGRESS,
    REFUSED,
    Order,
    OrderRefused,
    fetch_order,
    loss_metric,
    say,
    send_result,
)

SAY_SECONDS = 2.0
STOPPED = 143


class Loss:
    """Sends each logged loss once: a training that goes on tells again what the one before it has told."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self.client, self.run = client, run
        self.known = max((one.step for one in client.get_metric_history(run, "loss")), default=-1)
        self.waiting: list[Metric] = []
        self.last: TrainingPoint | None = None
        self.sent = 0.0

    def add(self, point: TrainingPoint) -> None:
        self.last = point
        if point.step > self.known:
            self.known = point.step
            self.waiting.append(loss_metric(point))
        if time.monotonic() - self.sent > SAY_SECONDS:
            self.send()

    def send(self) -> None:
        self.sent = time.monotonic()
        try:
            self.client.log_batch(self.run, metrics=self.waiting)
            self.waiting = []
        except MlflowException as error:
            print(json.dumps({"event": "unsaid", "reason": str(error)[:300]}), flush=True)
        if self.last is not None:
            say(self.client, self.run, PROGRESS, json.dumps(asdict(self.last)))


def train_ordered(client: MlflowClient, run: str, order_sha256: str, settings: Settings) -> None:
    """Raises OrderRefused, BaseModelRefused, TrainingRefused, ChildFailed, MlflowException."""
    work = settings.state / "work" / run
    work.mkdir(parents=True, exist_ok=True)
    kept = work / CURVE
    if not kept.exists():
        curve = _train(client, run, *fetch_order(client, run, order_sha256, work), work, settings)
        kept.write_text(json.dumps([asdict(point) for point in curve]))
    points = tuple(TrainingPoint(**point) for point in json.loads(kept.read_text()))
    send_result(client, run, work / "adapter", points)
    shutil.rmtree(work, ignore_errors=True)


def _train(
    client: MlflowClient, run: str, order: Order, dialogs: Path, work: Path, settings: Settings
) -> tuple[TrainingPoint, ...]:
    if order.code != code_digest():
        raise OrderRefused("this image has other training code than the release; build it from the release's commit")
    request = LoraRequest(
        base=str(_base(order, settings)), dialogs=str(dialogs), out=str(work / "adapter"),
        checkpoint=str(settings.state / "checkpoints" / f"{run}.safetensors"), **order.request,
    )  # fmt: skip
    loss = Loss(client, run)

    def on_event(event: Event) -> None:
        print(json.dumps(event), flush=True)  # the pod's log
        if event["event"] == "step":
            loss.add(point_of(event))

    curve = train_in_child(request, work, order.timeout_seconds, on_event)
    loss.send()
    return curve


def _base(order: Order, settings: Settings) -> Path:
    """By the name of its folder on the volume, else by its id in the hub. Raises BaseModelRefused."""
    name = order.request["base_name"]
    try:
        base = resolve_base(name if (settings.models / name).is_dir() else order.base_model, settings)
    except BaseModelRefused as refused:
        raise BaseModelRefused(f"in the pod: {refused}; or put the folder {name} on the volume under models/") from None
    if (observed := folder_sha256(base, settings.state)) != order.base_sha256:
        raise BaseModelRefused(
            f"base model {name} on the volume has sha256 {observed[:16]}, the release has {order.base_sha256[:16]}; put the same "
            "files on both"
        )
    return base


def main() -> int:
    run, order_sha256 = sys.argv[1:]
    signal.signal(signal.SIGTERM, _stop)
    settings = get_settings()
    client = MlflowClient(settings.mlflow_uri)
    try:
        train_ordered(client, run, order_sha256, settings)
    except (TrainingRefused, BaseModelRefused, OrderRefused) as error:
        return _end(client, run, REFUSED, error)
    except (ChildFailed, MlflowException, OSError) as error:
        return _end(client, run, FAILED, error)
    return 0


def _end(client: MlflowClient, run: str, tag: str, error: Exception) -> int:
    print(json.dumps({"event": "ended", "reason": str(error)}), flush=True)
    say(client, run, tag, str(error))
    return 1


def _stop(*_: Any) -> None:
    """The child is killed on the way out; the next pod goes on from its checkpoint."""
    sys.exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
