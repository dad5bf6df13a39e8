"""The champion as MLflow knows it: its name at the engine, its bytes, and the eval report that its promotion rests on. Effect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow

from evals.report import EvalReport, from_json
from tasks.ledger import alias_version
from tasks.promotion.evidence import evidence_folder

REPORT = "candidate.json"


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
    version = alias_version(client, name, "champion")
    if version is None:
        raise NoChampion(f"{name} has no champion; release one, then evaluate it again")
    found = client.get_model_version(name, version)
    kept = f"{evidence_folder(found.tags['liftlock.evidence'])}/{REPORT}"
    path = mlflow.artifacts.download_artifacts(run_id=found.run_id, artifact_path=kept)
    report = from_json(Path(path).read_text(encoding="utf-8"))
    if report.sha256 != found.tags.get("liftlock.eval_report_sha256"):
        raise NoChampion(
            f"the eval report of {name} version {version} in MLflow has sha256 {report.sha256[:12]}, its evidence names "
            f"{found.tags.get('liftlock.eval_report_sha256', 'none')[:12]}; release it again"
        )
    return ChampionReport(version, found.tags["liftlock.engine_model"], report)
