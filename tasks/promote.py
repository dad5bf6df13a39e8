"""promote: a registered version to staging, or by a canary to champion, on the evidence that its release left."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path

import mlflow

from tasks.approve import approve
from tasks.lease import leased
from tasks.ledger import alias_version, promoter
from tasks.model_lock import ModelLock
from tasks.promotion.database import DATABASE
from tasks.promotion.ledger import Alias
from tasks.promotion.move import AliasMoved, Wanted
from tasks.promotion.recall import recall, recall_spec
from tasks.register import read_version
from tasks.roll_out import RolloutUndone, roll_out_version
from tasks.run import start_run
from tasks.settings import get_settings
from tasks.spec import DeliverySpec
from tasks.stack.addresses import addresses


@dataclass(frozen=True)
class Promoted:
    """What a promotion or a rollback did. `moved` is False where the alias was there already."""

    model: str
    alias: str
    from_version: str | None
    to_version: str
    moved: bool
    reason: str


def promote_version(
    model: str,
    version: str,
    to: Alias,
    *,
    expected: str | None,
    reason: str,
    actor: str | None = None,
    delivery: DeliverySpec | None = None,
) -> Promoted:
    """`expected` None: from wherever the alias is now. `delivery`: in place of the one that the version was released with.

    Raises EvidenceRefused, AliasMoved, RolloutUndone, ReleaseUnderWay, ApprovalPending, ApprovalRefused, or suspends the flow.
    """
    client = mlflow.MlflowClient()
    before = alias_version(client, model, to)
    if expected is not None and before != expected:
        raise AliasMoved(
            f"{model}@{to} names version {before or 'none'}, expected {expected}; look at `liftlock history {model}`"
        )
    actor = actor or getpass.getuser()
    wanted = Wanted(model, to, version, before, actor, reason, {})
    promoter().verify(model, to, version, {})  # before people are asked and a GPU is touched
    if before != version:
        spec = recall_spec(client, model, version)
        approve(read_version(client, model, version), to, spec.approval, f"promote-{model}-{version}", actor)
    if to == "champion":
        _roll_out(client, wanted, delivery)
        return Promoted(model, to, before, version, before != version, reason)
    line = promoter().move(wanted)
    return Promoted(model, to, before, version, line is not None, reason)


def _roll_out(client: mlflow.MlflowClient, wanted: Wanted, delivery: DeliverySpec | None) -> None:
    settings = get_settings()
    recalled = recall(client, wanted.model, str(wanted.version))
    version = read_version(client, wanted.model, str(wanted.version))
    spec = recalled.spec.model_copy(update={"delivery": delivery}) if delivery else recalled.spec
    with ModelLock(addresses(settings).dsn(DATABASE), wanted.model):
        run = start_run(settings.state, Path("promote"), wanted.model, resume=False, fresh=True)
        run.actor, run.reason = wanted.actor, wanted.reason
        with leased(run, addresses(settings).dsn(DATABASE)):
            rollout = roll_out_version(version, recalled.modelcar, recalled.fit, recalled.dataset(), spec)
        run.record(verdict="champion" if rollout.outcome == "completed" else "undone")
    if rollout.outcome != "completed":
        raise RolloutUndone(rollout)
