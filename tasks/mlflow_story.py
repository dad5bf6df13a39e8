"""What MLflow's own page shows of a release: the datasets of a run, the logged model, the evaluation item by item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import mlflow
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag

from tasks.artifacts import Adapter, Dataset, EvalPair, GateDecision
from tasks.promotion.evidence import evidence_folder

CONTEXT = {"train": "training", "replay": "training", "test": "evaluation"}
TABLE = "items.json"
DESCRIPTION_LENGTH = 5000  # MLflow's limit
DIGEST_LENGTH = 36  # MLflow's limit


def dataset_inputs(dataset: Dataset) -> list[DatasetInput]:
    """One a split; MLflow's digest is the beginning of the file's sha256."""
    return [
        DatasetInput(
            dataset=MlflowDataset(
                name=f"{dataset.name}/{split.name}",
                digest=split.sha256[:DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": str(split.path)}),
                profile=json.dumps({"num_rows": split.num_rows}),
            ),
            tags=[InputTag("mlflow.data.context", CONTEXT.get(split.name, split.name))],
        )
        for split in dataset.splits
    ]


def version_story(inputs: Sequence[DatasetInput], adapter: Adapter, decision: GateDecision) -> str:
    """A model version's description, in Markdown: what was trained on what, how it was judged, and where the page says the rest."""
    rows = [
        f"{one.dataset.name} ({json.loads(one.dataset.profile or '{}').get('num_rows', '?')} items)" for one in inputs
    ]
    training = ", ".join(row for row, one in zip(rows, inputs, strict=True) if _context(one) == "training")
    test = ", ".join(row for row, one in zip(rows, inputs, strict=True) if _context(one) == "evaluation")
    steps = adapter.curve[-1].total_steps if adapter.curve else "?"
    what = f"a LoRA adapter of rank {adapter.r} for {adapter.base_model}"
    parts = (
        f"**Trained**: {what}, {steps} steps on {training or 'data that the run does not name'}.",
        "**Runs on** what the tag `liftlock.fit` says. **Promoted** by whom, when and why: the tags `liftlock.candidate`, "
        "`liftlock.staging` and `liftlock.champion`. Both answers to each item are in the source run, under evidence.",
        f"**Judged** on {test or 'the test items'}: {' '.join(decision.reasons)}",  # the longest last: it may be cut
    )
    return "\n\n".join(parts)[:DESCRIPTION_LENGTH]


def _context(one: DatasetInput) -> str:
    return next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "")


def item_table(pair: EvalPair) -> dict[str, list[Any]]:
    """The columns of the evaluation: each item with both answers and scores."""
    before = {item.id: item for item in pair.baseline.items}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("id", "target", "answer", "score", "baseline_answer", "baseline_score")
    }
    for item in pair.candidate.items:
        other = before.get(item.id)
        found = (item.id, item.target, item.answer, item.score, other and other.answer, other and other.score)
        for name, value in zip(columns, found, strict=True):
            columns[name].append(value)
    return columns


def log_items(client: mlflow.MlflowClient, run_id: str, key: str, pair: EvalPair) -> None:
    """As a table that MLflow's page shows; once for each evidence key, because MLflow would append."""
    folder = evidence_folder(key)
    if f"{folder}/{TABLE}" not in {one.path for one in client.list_artifacts(run_id, folder)}:
        client.log_table(run_id, data=item_table(pair), artifact_file=f"{folder}/{TABLE}")


def logged_model(client: mlflow.MlflowClient, name: str, adapter: Adapter, pair: EvalPair) -> str:
    """MLflow's id of the adapter as a logged model, with the scores: the one that is there, or a new one."""
    run = client.get_run(adapter.run_id)
    experiment = run.info.experiment_id
    label = f"{name}-{adapter.sha256[:12]}"
    found = client.search_logged_models([experiment], filter_string=f"name = '{label}'")
    model = found[0] if found else client.create_logged_model(
        experiment, name=label, source_run_id=adapter.run_id, model_type="LoRA adapter",
        tags={"liftlock.adapter_sha256": adapter.sha256, "liftlock.base_model": adapter.base_model},
        params={"r": str(adapter.r), "lora_alpha": str(adapter.lora_alpha)},
    )  # fmt: skip
    client.finalize_logged_model(model.model_id, "READY")
    for metric, value in pair.candidate.metrics:
        client.log_metric(adapter.run_id, f"test/{metric.replace(',', '/')}", value, model_id=model.model_id)
    return str(model.model_id)
