"""train: Dataset → Adapter. Renders items into dialogs, trains in a child process or as a cluster's Job, and records the run in MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Param, RunTag

from evals.prompt import Prompt, load_prompt, messages
from evals.suite import file_sha256
from serving.delivery.kube_api import KubeApi
from tasks.artifacts import Adapter, Dataset, TrainingPoint
from tasks.base_model import folder_sha256, resolve_base
from tasks.checkpoints import remove_checkpoint
from tasks.dataset import read_items
from tasks.digests import ADAPTER_FILES as ADAPTER_FILES
from tasks.digests import adapter_sha256, digest_of
from tasks.lora import LoraRequest
from tasks.manifests import gpu_label, platform_of
from tasks.mlflow_story import dataset_inputs
from tasks.model_card import training_card
from tasks.progress import Progress
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.spec import NOT_OF_THE_BYTES, Release
from tasks.stage import stage
from tasks.train_child import code_digest, point_of, train_in_child, training_code
from tasks.train_on_cluster import Seat, Trained, place_of, train_on_cluster
from tasks.training_job import Pod
from tasks.training_order import ADAPTER, Order, loss_metric, new_run


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
    """Raises TrainingRefused, ChildFailed, BaseModelRefused, and on a cluster what train_on_cluster and place_of raise."""
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
    key = digest_of(*_key(dataset, spec))
    learned = {"base_name": base.name, "key": key, **spec.training.model_dump(exclude=NOT_OF_THE_BYTES)}
    train_there = _train_on_cluster if spec.training.where == "kubernetes" else _train_here
    trained = train_there(spec, learned, base, dialogs, work / "adapter")
    curve = trained.curve
    sha256 = adapter_sha256(work / "adapter")
    home = settings.state / "trained" / f"{spec.name}-{sha256[:16]}"
    base_sha256 = folder_sha256(base, settings.state)
    (work / "adapter" / "README.md").write_text(training_card(spec, dataset, base.name, base_sha256, curve[-1]))
    if not home.exists():
        home.parent.mkdir(exist_ok=True)
        shutil.move(work / "adapter", home)
    run_id = _record(spec, dataset, base.name, base_sha256, sha256, trained, home)
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


def _train_here(spec: Release, learned: dict[str, Any], base: Path, dialogs: Path, out: Path) -> Trained:
    run, key = current_run(), learned["key"]
    checkpoint = get_settings().state / "checkpoints" / f"{spec.name}-{key[:16]}.safetensors"
    if run.fresh:
        remove_checkpoint(checkpoint)
    request = LoraRequest(base=str(base), dialogs=str(dialogs), out=str(out), checkpoint=str(checkpoint), **learned)
    with Progress(run.console, "train") as progress:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                _show(progress, point_of(event))
            elif event["event"] in ("anew", "no_checkpoint"):
                _tell(_words(event))

        return Trained(None, train_in_child(request, out.parent, spec.training.timeout_seconds, on_event))


def _train_on_cluster(spec: Release, learned: dict[str, Any], base: Path, dialogs: Path, out: Path) -> Trained:
    settings, run, asked = get_settings(), current_run(), spec.training.cluster
    place = place_of(settings, platform_of(settings).gpu_label)
    seconds = spec.training.timeout_seconds
    pod = Pod(asked.gpu and gpu_label(asked.gpu), asked.cpu, asked.memory, asked.priority, seconds)
    base_sha256 = folder_sha256(base, settings.state)
    order = Order(learned, spec.base_model, base_sha256, file_sha256(dialogs), code_digest(), seconds)
    with Progress(run.console, "train") as progress:
        seat = Seat(KubeApi(), place, mlflow.MlflowClient(), _tell, lambda point: _show(progress, point))
        return train_on_cluster(seat, pod, spec.name, learned["key"], order, dialogs, out, fresh=run.fresh)


def _show(progress: Progress, point: TrainingPoint) -> None:
    progress.update(point.step, point.total_steps, f"loss {point.loss:.3f}")


def _tell(words: str) -> None:
    current_run().console.print(f"  {words}", highlight=False, markup=False, soft_wrap=True)


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
    trained: Trained,
    adapter: Path,
) -> str:
    """One MLflow run with parameters, the loss curve, the data's digests and the adapter's files; returns its id.

    A cluster's run has loss and files already, and gets the rest.
    """
    client = mlflow.MlflowClient()
    if trained.run and client.get_run(trained.run).info.status == "FINISHED":
        return trained.run  # an earlier command recorded it, whose cache is not at hand
    run_id = trained.run or new_run(client, spec.name, sha256)
    training = spec.training.model_dump(mode="json", exclude={"cluster"})
    parameters = {**training, "base_model": base, "dataset_revision": dataset.revision}
    tags = {
        "liftlock.base_sha256": base_sha256, "liftlock.adapter_sha256": sha256, "liftlock.dataset_revision": dataset.revision,
        **{f"liftlock.{split.name}_sha256": split.sha256 for split in dataset.splits},
    }  # fmt: skip
    metrics = [] if trained.run else [loss_metric(point) for point in trained.curve]
    client.log_batch(
        run_id,
        metrics,
        [Param(key, str(value)[:500]) for key, value in parameters.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )
    client.log_inputs(run_id, dataset_inputs(dataset))
    if trained.run:
        client.log_artifact(run_id, str(adapter / "README.md"), ADAPTER)
    else:
        client.log_artifacts(run_id, str(adapter), ADAPTER)
    client.set_terminated(run_id)
    return run_id


def _key(dataset: Dataset, spec: Release) -> tuple[Any, ...]:
    settings = get_settings()
    base = resolve_base(spec.base_model, settings)
    data = [(split.name, split.sha256) for split in dataset.splits if split.name != "test"]
    return ("1", spec.name, folder_sha256(base, settings.state), data, spec.training.model_dump(mode="json", exclude=NOT_OF_THE_BYTES),
            load_prompt(spec.gate.prompt).sha256, spec.dataset.answer, *training_code())  # fmt: skip


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
