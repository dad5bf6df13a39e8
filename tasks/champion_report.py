"""The champion as MLflow knows it: its name at the engine, and what its promotion rests on. Effect."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion

from evals.report import EvalReport, from_json
from tasks.ledger import alias_version
from tasks.promotion.evidence import read_document

REPORT, ROLLOUT = "candidate.json", "rollout.json"


class NoChampion(Exception):
    """There is nothing to evaluate again, or its evidence is gone."""


@dataclass(frozen=True)
class ChampionReport:
    version: str
    engine_model: str
    report: EvalReport


def champion_report(name: str) -> ChampionReport:
    """Raises NoChampion, ReportInvalid, MlflowException."""
    client = mlflow.MlflowClient()
    found = _champion(client, name, "release one, then evaluate it again")
    report = from_json(read_document(client, found, REPORT))
    if report.sha256 != found.tags.get("liftlock.eval_report_sha256"):
        raise NoChampion(
            f"the eval report of {name} version {found.version} in MLflow has sha256 {report.sha256[:12]}, its evidence names "
            f"{found.tags.get('liftlock.eval_report_sha256', 'none')[:12]}; release it again"
        )
    return ChampionReport(str(found.version), found.tags["liftlock.engine_model"], report)


def champion_rollout(name: str) -> dict[str, Any]:
    """The rollout record that made the champion. Raises NoChampion, MlflowException."""
    client = mlflow.MlflowClient()
    found = _champion(client, name, "release one, or write the engine's figures into a chain.yaml")
    return dict(json.loads(read_document(client, found, ROLLOUT)))


def _champion(client: mlflow.MlflowClient, name: str, otherwise: str) -> ModelVersion:
    version = alias_version(client, name, "champion")
    if version is None:
        raise NoChampion(f"{name} has no champion; {otherwise}")
    return client.get_model_version(name, version)
