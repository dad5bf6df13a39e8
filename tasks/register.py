"""register: the judged adapter becomes a ModelVersion in MLflow with the alias candidate and tags that name the evidence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from evals.report import to_json
from tasks.artifacts import Adapter, EvalPair, GateDecision, ModelVersion
from tasks.golden import golden_document, golden_tag
from tasks.judge import decision_digest
from tasks.ledger import alias_version, move_alias
from tasks.mlflow_story import log_items, logged_model, version_story
from tasks.promotion.evidence import keep_document
from tasks.settings import get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stage import digest_of, stage


def evidence_of(adapter: Adapter, pair: EvalPair, decision: GateDecision) -> dict[str, str]:
    """The exact bytes that a promotion rests on."""
    return {
        "adapter_sha256": adapter.sha256,
        "base_sha256": adapter.base_sha256,
        "dataset_revision": adapter.dataset_revision,
        "eval_report_sha256": pair.candidate.sha256,
        "baseline_report_sha256": pair.baseline.sha256,
        "decision_sha256": decision_digest(decision),
    }


def register_version(adapter: Adapter, pair: EvalPair, decision: GateDecision, spec: Release) -> ModelVersion:
    """The version of exactly this evidence: the one that is there, or a new one. Raises AliasMoved, MlflowException."""
    client = mlflow.MlflowClient()
    evidence = evidence_of(adapter, pair, decision)
    key = digest_of(evidence)
    _ensure_model(client, spec.name)
    documents = {"candidate.json": to_json(pair.candidate), "baseline.json": to_json(pair.baseline),
                 "decision.json": asdict(decision), "spec.json": spec.model_dump_json(), **golden_document(pair)}  # fmt: skip
    for file, document in documents.items():
        keep_document(client, adapter.run_id, key, file, document)
    version = _find(client, spec.name, key) or _create(client, spec, adapter, pair, decision, evidence, key)
    dsn = addresses(get_settings()).dsn("liftlock")
    move_alias(
        dsn,
        spec.name,
        "candidate",
        version,
        expected=alias_version(client, spec.name, "candidate"),
        reason="the eval gate passed",
        evidence=evidence,
    )
    return read_version(client, spec.name, version)


def read_version(client: mlflow.MlflowClient, name: str, version: str) -> ModelVersion:
    found = client.get_model_version(name, version)
    return ModelVersion(
        name,
        version,
        found.run_id,
        found.source,
        digest_of(name, version, found.tags["liftlock.evidence"]),
        tuple(sorted(found.aliases)),
    )


def _ensure_model(client: mlflow.MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="Released by Liftlock: candidate → staging → champion.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(client: mlflow.MlflowClient, name: str, key: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}'")
    return next((str(one.version) for one in found if one.tags.get("liftlock.evidence") == key), None)


def _create(
    client: mlflow.MlflowClient,
    spec: Release,
    adapter: Adapter,
    pair: EvalPair,
    decision: GateDecision,
    evidence: dict[str, str],
    key: str,
) -> str:
    run = client.get_run(adapter.run_id)
    log_items(client, adapter.run_id, key, pair)
    rule = decision.rules[0]
    model_id = logged_model(client, spec.name, adapter, pair)
    tags = {
        **{f"liftlock.{name}": value for name, value in evidence.items()},
        "liftlock.evidence": key,
        "liftlock.verdict": decision.verdict,
        "liftlock.baseline_version": pair.baseline_version or "base",
        "liftlock.score": f"{dict(pair.candidate.metrics)[spec.gate.metric]:.4f}",
        "liftlock.difference": f"{rule.estimate:+.4f} [{rule.low:+.4f}, {rule.high:+.4f}]",
        "liftlock.items": str(decision.items_used),
        "liftlock.logged_model": model_id,
        **golden_tag(pair),
    }
    made = client.create_model_version(
        spec.name,
        source=f"{run.info.artifact_uri}/adapter",
        run_id=adapter.run_id,
        tags=tags,
        description=version_story(run.inputs.dataset_inputs, adapter, decision),
    )
    return str(made.version)


def _key(adapter: Adapter, pair: EvalPair, decision: GateDecision, spec: Release) -> tuple[Any, ...]:
    return ("2", spec.name, evidence_of(adapter, pair, decision))


def _intact(version: ModelVersion) -> bool:
    """Still in the registry, on the same evidence."""
    try:
        return read_version(mlflow.MlflowClient(), version.name, version.version).sha256 == version.sha256
    except (MlflowException, KeyError):
        return False


register = stage(
    "register",
    key=_key,
    digest=lambda version: version.sha256,
    note=lambda version: f"{version.name} version {version.version} @candidate",
    artifact=lambda version: (
        f"`models:/{version.name}/{version.version}` of run `{version.run_id}`, source `{version.source}`\n"
    ),
    intact=_intact,
)(register_version)
