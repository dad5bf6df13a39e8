"""gate_candidate: a registered version, asked again beside the champion of today. Its release judged it against the one of then.

A candidate that was set by hand may be old. What was answered on the same engine is not asked again (evaluate.py keeps it).
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow

from tasks.artifacts import Adapter, GateDecision
from tasks.base_model import resolve_base
from tasks.dataset import read_dataset
from tasks.evaluate import evaluate_pair
from tasks.judge import GateRefused, judge_pair
from tasks.ledger import DATABASE, event_sender, promoter
from tasks.model_lock import ModelLock
from tasks.promotion import events
from tasks.promotion.recall import recall_spec
from tasks.run import current_run, start_run
from tasks.settings import get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses

SAID = 5000  # characters that MLflow keeps in a tag


def gate_version(model: str, version: str) -> GateDecision:
    """Passed, and told to Prefect as `liftlock.candidate.passed`. Raises GateRefused, which is told and tagged too,
    EvidenceRefused, ReleaseUnderWay, and what an evaluation raises.
    """
    settings, client = get_settings(), mlflow.MlflowClient()
    promoter().verify(model, "candidate", version, {})  # before anything is asked
    spec = recall_spec(client, model, version)
    with ModelLock(addresses(settings).dsn(DATABASE), model):
        run = start_run(settings.state, Path("gate"), model, resume=False, fresh=True)
        pair = evaluate_pair(_adapter(client, spec, version), read_dataset(spec), spec)
        decision = judge_pair(pair, spec)
        run.record(verdict=decision.verdict)
    _tell(client, model, version, decision)
    if decision.verdict != "passed":
        raise GateRefused(decision)
    return decision


def _adapter(client: mlflow.MlflowClient, spec: Release, version: str) -> Adapter:
    """From MLflow, where its bytes were just checked."""
    found = client.get_model_version(spec.name, version)
    tags = found.tags
    folder = current_run().folder / "adapter"
    path = Path(mlflow.artifacts.download_artifacts(artifact_uri=found.source, dst_path=str(folder)))
    config = json.loads((path / "adapter_config.json").read_text())
    base = resolve_base(spec.base_model, get_settings())
    return Adapter(
        path=path,
        base=base,
        base_model=base.name,
        base_sha256=tags["liftlock.base_sha256"],
        r=config["r"],
        lora_alpha=config["lora_alpha"],
        target_modules=tuple(config["target_modules"]),
        sha256=tags["liftlock.adapter_sha256"],
        run_id=found.run_id,
        dataset_revision=tags["liftlock.dataset_revision"],
        curve=(),
    )


def _tell(client: mlflow.MlflowClient, model: str, version: str, decision: GateDecision) -> None:
    """The tag of the version first: MLflow's page says it even where Prefect does not answer."""
    against = f"version {decision.baseline_version}" if decision.baseline_version else "the base model"
    said = f"{decision.verdict} against {against}: {' '.join(decision.reasons)}"
    client.set_model_version_tag(model, version, "liftlock.gate", said[:SAID])
    payload = {"model": model, "version": version, "verdict": decision.verdict, "reason": said}
    name, key = f"liftlock.candidate.{decision.verdict}", f"gate {current_run().run_id}"
    event_sender()(events.event(name, model, {"version": version}, payload, key, events.now()))
