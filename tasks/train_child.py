"""The process that trains, started and read: by the train stage on this machine, by tasks/train_in_pod.py in a pod."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

from tasks.child import Event, run_child
from tasks.digests import digest_of
from tasks.lora import LoraRequest, TrainingPoint, TrainingRefused
from tasks.settings import ROOT

TRAINING_CODE = ("lora.py", "resumable.py", "checkpoints.py")
CHILD_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONHASHSEED": "0",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def training_code() -> tuple[str, ...]:
    """The texts that the adapter's bytes depend on."""
    return tuple((ROOT / "tasks" / file).read_text() for file in TRAINING_CODE)


def code_digest() -> str:
    return digest_of(*training_code())


def point_of(event: Event) -> TrainingPoint:
    return TrainingPoint(**{field.name: event[field.name] for field in fields(TrainingPoint)})


def train_in_child(
    request: LoraRequest, work: Path, timeout: float, on_event: Callable[[Event], None]
) -> tuple[TrainingPoint, ...]:
    """The loss curve; the adapter lies in `request.out`. `timeout` in seconds. Raises TrainingRefused, ChildFailed."""
    curve: list[TrainingPoint] = []
    refusals: list[str] = []
    file = work / "request.json"
    file.write_text(json.dumps(asdict(request)))

    def take(event: Event) -> None:
        if event["event"] == "step":
            curve.append(point_of(event))
        elif event["event"] == "refused":
            refusals.append(event["reason"])
        on_event(event)

    run_child(
        [sys.executable, "-m", "tasks.lora", str(file)], what="training", on_event=take, timeout=timeout, cwd=ROOT,
        env=CHILD_ENVIRONMENT,
    )  # fmt: skip
    if refusals or not curve:
        raise TrainingRefused(
            refusals[0] if refusals else "training ended without a single step; give more items or epochs"
        )
    return tuple(curve)
