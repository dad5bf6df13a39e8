"""What the champion's own canary measured, from its evidence in MLflow. Effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow

from tasks.champion_report import NoChampion
from tasks.ledger import alias_version
from tasks.promotion.evidence import evidence_folder

RECORD = "rollout.json"


def champion_rollout(name: str) -> dict[str, Any]:
    """The rollout record that made the champion. Raises NoChampion, MlflowException."""
    client = mlflow.MlflowClient()
    version = alias_version(client, name, "champion")
    if version is None:
        raise NoChampion(f"{name} has no champion; release one, or write the engine's figures into a chain.yaml")
    found = client.get_model_version(name, version)
    kept = f"{evidence_folder(found.tags['liftlock.evidence'])}/{RECORD}"
    path = mlflow.artifacts.download_artifacts(run_id=found.run_id, artifact_path=kept)
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))
