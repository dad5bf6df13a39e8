"""roll_out: the modelcar's adapter takes over the model's traffic in steps; at 100 percent the version becomes champion."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import mlflow

from serving.gateway.envoy import VERSION_HEADER
from serving.rollout.ask import Messages
from serving.rollout.clients import ClientLog
from serving.rollout.golden import Golden, key_of
from serving.rollout.local import LocalTarget
from serving.rollout.model import Step
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out as run_steps
from serving.rollout.swap import SwapTarget
from serving.rollout.traffic import Traffic
from tasks.analysis_policy import policy_of
from tasks.artifacts import Dataset, FitReport, Modelcar, ModelVersion, Rollout
from tasks.build_and_push import engine_model_of
from tasks.cluster_rollout import roll_out_on_cluster
from tasks.delivered import delivered_to, keep_delivery
from tasks.engine_contract import hold_to_contract
from tasks.evaluate import prompts_of
from tasks.gateway_keys import own_headers
from tasks.golden import golden_of
from tasks.ledger import alias_version, move_alias
from tasks.model_lock import ModelLock
from tasks.place import Place, await_place, end_unused
from tasks.promotion.evidence import keep_document
from tasks.rollout_evidence import markdown
from tasks.rollouts import rollouts_of
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of
from tasks.stage import Status, digest_of, stage
from tasks.strategies import placed, shadow_of, target_of, way_of
from tasks.swap import ended
from tasks.verify_modelcar import place_verified, verify_pushed

PROMPTS = 64


class RolloutUndone(Exception):
    """The canary was taken back; the champion is where it was."""

    def __init__(self, rollout: Rollout) -> None:
        super().__init__(f"the rollout was undone {rollout.reason}")
        self.rollout = rollout


def roll_out_version(
    version: ModelVersion, modelcar: Modelcar, fit: FitReport, dataset: Dataset, spec: Release
) -> Rollout:
    """Served from the verified modelcar, never from the training folder, by an engine that keeps the fit report's promise.

    Raises VerificationFailed, ContentMismatch, ContractBroken, DigestMismatch, GatewayNotApplied, AliasMoved, and
    ReleaseUnderWay where another rollout of the model or its rollback is under way.
    """
    with ModelLock(addresses(get_settings()).dsn("liftlock"), spec.name, "rollout"):
        if spec.delivery.target != "local":
            return _roll_out_there(version, modelcar, dataset, spec)
        keep_delivery(get_settings(), spec)
        return _roll_out_locked(version, modelcar, fit, dataset, spec)


def _roll_out_there(version: ModelVersion, modelcar: Modelcar, dataset: Dataset, spec: Release) -> Rollout:
    """By the targets gitops and kubernetes."""
    verify_pushed(version, modelcar)
    client = mlflow.MlflowClient()
    before = alias_version(client, spec.name, "champion")
    rollout = roll_out_on_cluster(get_settings(), spec, version, modelcar, dataset)
    _keep(client, version, rollout)
    if rollout.outcome == "completed":
        _crown(version, modelcar, rollout, before)
    return rollout


def _roll_out_locked(
    version: ModelVersion, modelcar: Modelcar, fit: FitReport, dataset: Dataset, spec: Release
) -> Rollout:
    settings = get_settings()
    engine_model = engine_model_of(spec.name, modelcar)
    choice, place = placed(settings, fit, spec, engine_model)
    swap = choice.strategy == "swap"
    try:
        began = time.monotonic()
        place_verified(version, modelcar, settings.adapters / engine_model, place.base)
        pulled = time.monotonic() - began
        await_place(settings, place)

        def check() -> None:
            hold_to_contract(fit, modelcar, version, place)

        if not swap:
            check()
        client = mlflow.MlflowClient()
        before = alias_version(client, spec.name, "champion")
        golden = golden_of(client, version.name, version.version)
        target = target_of(settings, spec, place, check if swap else None)
        done = _canary(target, place, engine_model, modelcar, dataset, spec, pulled, golden, way_of(spec, choice))
        rollout = replace(done, strategy=choice.strategy, why=choice.why)
        _keep(client, version, rollout)
    finally:
        end_unused(settings, spec.name, spec.delivery.drain_seconds)
    ended(settings, spec.name)
    if rollout.outcome == "completed":
        _crown(version, modelcar, rollout, before)
    return rollout


def _keep(client: mlflow.MlflowClient, version: ModelVersion, rollout: Rollout) -> None:
    """As evidence: rollout.json is a champion's."""
    key = client.get_model_version(version.name, version.version).tags["liftlock.evidence"]
    name = "rollout.json" if rollout.outcome == "completed" else "rollout-undone.json"
    keep_document(client, version.run_id, key, name, asdict(rollout))


def _crown(version: ModelVersion, modelcar: Modelcar, rollout: Rollout, before: str | None) -> None:
    """Raises AliasMoved."""
    move_alias(
        addresses(get_settings()).dsn("liftlock"),
        version.name,
        "champion",
        version.version,
        expected=before,
        reason=f"rolled out: {rollout.reason}",
        evidence={
            "modelcar": modelcar.reference,
            "version_sha256": version.sha256,
            "rollout_sha256": digest_of(asdict(rollout)["steps"]),
        },
    )


def _canary(
    target: LocalTarget,
    place: Place,
    engine_model: str,
    modelcar: Modelcar,
    dataset: Dataset,
    spec: Release,
    pulled: float,
    golden: Sequence[Golden],
    way: str,
) -> Rollout:
    settings, delivery, run = get_settings(), spec.delivery, current_run()
    gateway = target.gateway
    prompts = _prompts(prompts_of(spec, dataset.split("test").path)[:PROMPTS], golden)

    def tell(step: Step) -> None:
        said = f"  canary at {step.weight} %: {step.candidate.requests} of {step.candidate.requests + step.stable.requests} requests; {step.reason}"
        run.console.print(said, highlight=False, markup=False, soft_wrap=True)

    weights = (100,) if isinstance(target, SwapTarget) else (0, *delivery.steps) if target.mirror else delivery.steps
    plan = Plan(
        model=spec.name,
        engine_model=engine_model,
        reference=modelcar.reference,
        engine_url=place.url,
        prompts=prompts,
        weights=weights,
        warmup_requests=delivery.warmup_requests,
        policy=replace(policy_of(delivery), golden=bool(golden), steps=len(weights)),
        hold_seconds=delivery.hold_seconds,
        drain_seconds=delivery.drain_seconds,
        warmup_budget=delivery.warmup_first_token_seconds,
        pull_seconds=pulled,
        golden=golden,
        way=way,
    )
    headers = own_headers(gateway.folder)
    traffic = Traffic(
        addresses(settings).gateway, spec.name, prompts, VERSION_HEADER, headers=headers, golden=golden,
        under_way=gateway.under_way,
    )  # fmt: skip
    shadow = shadow_of(settings, target, spec, engine_model, place, dataset, prompts, golden)
    clients = None if delivery.sticky else ClientLog(gateway.folder / "access.log", spec.name)  # sticky: no draws
    return run_steps(rollouts_of(settings, spec.name), plan, target, traffic, tell, clients, shadow)


def _prompts(items: Sequence[Messages], golden: Sequence[Golden]) -> list[Messages]:
    """Every second one is golden where there are any, so that wrong answers show in a step of few requests."""
    known = {key_of(one.messages) for one in golden}
    others = [one for one in items if key_of(one) not in known]
    if not golden or not others:
        return list(items)
    return [one for pair in zip(itertools.cycle(one.messages for one in golden), others, strict=False) for one in pair]


def _key(version: ModelVersion, modelcar: Modelcar, fit: FitReport, dataset: Dataset, spec: Release) -> tuple[Any, ...]:
    return ("4", version.sha256, modelcar.digest, spec.delivery.model_dump())


def _intact(rollout: Rollout) -> bool:
    """Only a completed rollout that is still in force is believed: the gateway's split and the champion's tag agree with it."""
    if rollout.outcome != "completed" or _served(rollout) != rollout.engine_model:
        return False
    client = mlflow.MlflowClient()
    champion = alias_version(client, rollout.model, "champion")
    return (
        champion is not None
        and client.get_model_version(rollout.model, champion).tags.get("liftlock.modelcar") == rollout.reference
    )


def _served(rollout: Rollout) -> str:
    settings = get_settings()
    cluster = delivered_to(settings, rollout.model) if rollout.target != "local" else None
    if cluster:
        return cluster.stable(rollout.model)
    return LocalTarget(gateway_of(settings, addresses(settings), default_engine(settings))).stable(rollout.model)


def _status(rollout: Rollout) -> Status:
    return "done" if rollout.outcome == "completed" else "undone"


_roll_out = stage(
    "roll_out",
    key=_key,
    digest=lambda rollout: rollout.reference.rpartition("@")[2],
    note=lambda rollout: (
        f"{rollout.outcome}: {rollout.reason}" + (", @champion" if rollout.outcome == "completed" else "")
    ),
    artifact=markdown,
    intact=_intact,
    status=_status,
    retries=0,
)(roll_out_version)


def roll_out(version: ModelVersion, modelcar: Modelcar, fit: FitReport, dataset: Dataset, spec: Release) -> Rollout:
    """Raises RolloutUndone, after the rollout is on record."""
    rollout = _roll_out(version, modelcar, fit, dataset, spec)
    if rollout.outcome != "completed":
        raise RolloutUndone(rollout)
    return rollout
