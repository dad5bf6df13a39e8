"""train: Dataset → Adapter. Renders items into dialogs, trains in a child process, and records the run in MLflow."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag

from evals.prompt import Prompt, load_prompt, messages
from tasks.artifacts import Adapter, Dataset, TrainingPoint
from tasks.base_model import folder_sha256, resolve_base
from tasks.checkpoints import remove_checkpoint
from tasks.child import run_child
from tasks.dataset import read_items
from tasks.digests import ADAPTER_FILES as ADAPTER_FILES
from tasks.digests import adapter_sha256, digest_of
from tasks.lora import LoraRequest, TrainingRefused
from tasks.mlflow_story import dataset_inputs
from tasks.model_card import training_card
from tasks.progress import Progress
from tasks.run import current_run
from tasks.settings import ROOT, get_settings
from tasks.spec import Release
from tasks.stage import stage

TRAINING_CODE = ("lora.py", "resumable.py", "checkpoints.py")
CHILD_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONHASHSEED": "0",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def render_dialogs(dataset: Dataset, prompt: Prompt, answer: str) -> list[dict[str, Any]]:
    """Training items through the suite's prompt, and the replay dialogs as they stand."""
    train, replay = dataset.split("train"), dataset.find("replay")
    rows = [
        {"prompt": list(messages(prompt, item)), "completion": [{"role": "assistant", "content": str(item[answer])}]}
        for item in read_items(train.path)
    ]
    for item in read_items(replay.path) if replay else []:
        system = [{"role": "system", "content": item["system"]}] if item.get("system") else []
        rows.append(
            {
                "prompt": [*system, {"role": "user", "content": item["user"]}],
                "completion": [{"role": "assistant", "content": item["answer"]}],
            }
        )
    return rows


def train_adapter(dataset: Dataset, spec: Release) -> Adapter:
    """Raises TrainingRefused, ChildFailed, BaseModelRefused."""
    settings, run = get_settings(), current_run()
    base = resolve_base(spec.base_model, settings)
    work = run.folder / "train"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    dialogs = work / "dialogs.jsonl"
    dialogs.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in render_dialogs(dataset, load_prompt(spec.gate.prompt), spec.dataset.answer)
        )
    )
    training = spec.training.model_dump(exclude={"timeout_seconds"})
    key = digest_of(*_key(dataset, spec))
    checkpoint = settings.state / "checkpoints" / f"{spec.name}-{key[:16]}.safetensors"
    if run.fresh:
        remove_checkpoint(checkpoint)
    request = LoraRequest(
        base=str(base), base_name=base.name, dialogs=str(dialogs), out=str(work / "adapter"), **training,
        key=key, checkpoint=str(checkpoint),
    )  # fmt: skip
    curve = _train(request, work, spec.training.timeout_seconds)
    sha256 = adapter_sha256(work / "adapter")
    home = settings.state / "trained" / f"{spec.name}-{sha256[:16]}"
    base_sha256 = folder_sha256(base, settings.state)
    (work / "adapter" / "README.md").write_text(training_card(spec, dataset, base.name, base_sha256, curve[-1]))
    if not home.exists():
        home.parent.mkdir(exist_ok=True)
        shutil.move(work / "adapter", home)
    run_id = _record(spec, dataset, base.name, base_sha256, sha256, curve, home)
    return Adapter(
        home,
        base,
        base.name,
        base_sha256,
        spec.training.r,
        spec.training.lora_alpha,
        spec.training.target_modules,
        sha256,
        run_id,
        dataset.revision,
        curve,
    )


def _train(request: LoraRequest, work: Path, timeout: float) -> tuple[TrainingPoint, ...]:
    curve: list[TrainingPoint] = []
    refusals: list[str] = []
    file = work / "request.json"
    file.write_text(json.dumps(asdict(request)))
    with Progress(current_run().console, "train") as progress:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                point = TrainingPoint(**{key: event[key] for key in ("step", "total_steps", "loss", "seconds")})
                curve.append(point)
                progress.update(point.step, point.total_steps, f"loss {point.loss:.3f}")
            elif event["event"] == "refused":
                refusals.append(event["reason"])
            elif event["event"] in ("anew", "no_checkpoint"):
                current_run().console.print(f"  {_words(event)}", highlight=False, markup=False, soft_wrap=True)

        run_child(
            [sys.executable, "-m", "tasks.lora", str(file)], what="training", on_event=on_event, timeout=timeout, cwd=ROOT,
            env=CHILD_ENVIRONMENT,
        )  # fmt: skip
    if refusals or not curve:
        raise TrainingRefused(
            refusals[0] if refusals else "training ended without a single step; give more items or epochs"
        )
    return tuple(curve)


def _words(event: dict[str, Any]) -> str:
    if event["event"] == "anew":
        return f"the training begins anew: {event['reason']}"
    return (
        f"no checkpoint at step {event['step']}, a kill would cost the training since the last one: {event['reason']}"
    )


def _record(
    spec: Release,
    dataset: Dataset,
    base: str,
    base_sha256: str,
    sha256: str,
    curve: tuple[TrainingPoint, ...],
    adapter: Path,
) -> str:
    """One MLflow run with parameters, the loss curve, the data's digests and the adapter's files; returns its id."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(spec.name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(spec.name)
    made = client.create_run(experiment_id, run_name=f"train {sha256[:8]}")
    run_id: str = made.info.run_id
    parameters = {**spec.training.model_dump(mode="json"), "base_model": base, "dataset_revision": dataset.revision}
    tags = {
        "liftlock.base_sha256": base_sha256, "liftlock.adapter_sha256": sha256, "liftlock.dataset_revision": dataset.revision,
        **{f"liftlock.{split.name}_sha256": split.sha256 for split in dataset.splits},
    }  # fmt: skip
    metrics = [Metric("loss", point.loss, int(point.seconds * 1000), point.step) for point in curve]
    client.log_batch(
        run_id,
        metrics,
        [Param(key, str(value)[:500]) for key, value in parameters.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )
    client.log_inputs(run_id, dataset_inputs(dataset))
    client.log_artifacts(run_id, str(adapter), "adapter")
    client.set_terminated(run_id)
    return run_id


def _key(dataset: Dataset, spec: Release) -> tuple[Any, ...]:
    settings = get_settings()
    base = resolve_base(spec.base_model, settings)
    data = [(split.name, split.sha256) for split in dataset.splits if split.name != "test"]
    return ("1", spec.name, folder_sha256(base, settings.state), data, spec.training.model_dump(mode="json", exclude={"timeout_seconds"}),
            load_prompt(spec.gate.prompt).sha256, spec.dataset.answer, *((ROOT / "tasks" / file).read_text() for file in TRAINING_CODE))  # fmt: skip


def _intact(adapter: Adapter) -> bool:
    return (
        all((adapter.path / name).exists() for name in ADAPTER_FILES) and adapter_sha256(adapter.path) == adapter.sha256
    )


def _artifact(adapter: Adapter) -> str:
    rows = "\n".join(
        f"| {point.step} | {point.loss:.4f} | {point.seconds:.0f} |"
        for point in adapter.curve[:: max(1, len(adapter.curve) // 20)]
    )
    head = f"Adapter `{adapter.sha256[:16]}` of {adapter.base_model}, rank {adapter.r}, MLflow run `{adapter.run_id}`"
    return f"{head}\n\n| step | loss | seconds |\n|---|---|---|\n{rows}\n"


train = stage(
    "train",
    key=_key,
    digest=lambda adapter: adapter.sha256,
    note=lambda adapter: (
        f"{adapter.curve[-1].total_steps} steps, loss {adapter.curve[0].loss:.2f} → {adapter.curve[-1].loss:.2f}, rank {adapter.r}"
    ),
    artifact=_artifact,
    intact=_intact,
    retries=0,
)(train_adapter)
