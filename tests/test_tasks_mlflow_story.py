"""MLflow's page tells the story: read back from a real MLflow as its page would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from tasks.mlflow_story import dataset_inputs, log_items, logged_model, version_story
from tests.fix_outcome import adapter, champion, dataset


def test_the_splits_are_the_runs_datasets(mlflow_client: MlflowClient) -> None:
    run = mlflow_client.create_run("0").info.run_id
    mlflow_client.log_inputs(run, dataset_inputs(dataset()))
    inputs = mlflow_client.get_run(run).inputs.dataset_inputs
    found = {one.dataset.name: one for one in inputs}
    assert set(found) == {f"ticket_router/{name}" for name in ("train", "dev", "test", "replay")}
    test = found["ticket_router/test"]
    assert dataset().split("test").sha256.startswith(test.dataset.digest)
    assert [(tag.key, tag.value) for tag in test.tags] == [("mlflow.data.context", "evaluation")]
    decision = champion().decision
    assert decision
    story = version_story(inputs, adapter(), decision)
    assert "a LoRA adapter of rank 16 for SmolLM2-135M-Instruct, 378 steps on " in story
    trained, judged = story.split("\n\n")[0], story.split("\n\n")[-1]
    assert "ticket_router/train (504 items)" in trained and "ticket_router/replay (64 items)" in trained
    assert "test" not in trained and judged.startswith("**Judged** on ticket_router/test (320 items): ")
    assert judged.endswith(decision.reasons[-1])


def test_the_table_has_every_item_once_with_both_answers(mlflow_client: MlflowClient, tmp_path: Path) -> None:
    pair = champion().pair
    assert pair
    run = mlflow_client.create_run("0").info.run_id
    for _ in range(2):  # a release that was killed in between comes here again
        log_items(mlflow_client, run, "k" * 64, pair)
    table = json.loads(
        Path(mlflow_client.download_artifacts(run, f"evidence/{'k' * 12}/items.json", str(tmp_path))).read_text()
    )
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["id"] for row in rows] == [item.id for item in pair.candidate.items]
    first = pair.candidate.items[0]
    other = next(item for item in pair.baseline.items if item.id == first.id)
    assert (rows[0]["answer"], rows[0]["score"], rows[0]["baseline_answer"]) == (
        first.answer,
        first.score,
        other.answer,
    )


def test_the_adapter_is_one_logged_model_with_its_scores(mlflow_client: MlflowClient, registered: str) -> None:
    pair = champion().pair
    assert pair
    run = mlflow_client.create_run("0").info
    made = replace(adapter(), run_id=run.run_id)
    ids = {logged_model(mlflow_client, registered, made, pair) for _ in range(2)}
    assert len(ids) == 1
    model = mlflow_client.get_logged_model(next(iter(ids)))
    assert (model.source_run_id, str(model.status)) == (run.run_id, "READY")
    assert model.tags["liftlock.adapter_sha256"] == made.sha256
    assert {metric.value for metric in model.metrics} == {value for _, value in pair.candidate.metrics}
