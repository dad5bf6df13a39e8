"""rollback: an earlier champion's modelcar gets all of the traffic again, then the alias. It needs no Prefect and no training data."""

from __future__ import annotations

import getpass

import mlflow
from mlflow.exceptions import MlflowException

from serving.gateway.model import Split
from serving.rollout.warmth import warm_up
from tasks.base_model import resolve_base
from tasks.cluster_rollout import serve_on_cluster
from tasks.delivered import as_delivered
from tasks.ledger import alias_version, promoter
from tasks.model_lock import ModelLock
from tasks.place import Place, await_place, covered, current_place, end_unused, engine_of, own_engine, start
from tasks.promote import Promoted
from tasks.promotion.database import DATABASE, connect
from tasks.promotion.ledger import champions, lines
from tasks.promotion.move import Promoter, Wanted
from tasks.promotion.recall import not_found, recall
from tasks.register import read_version
from tasks.settings import Settings, get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of
from tasks.verify_modelcar import place_verified, verify_pushed

WARM_UP = [[{"role": "user", "content": "ready?"}]]


class NothingToUndo(Exception):
    """The ledger knows no champion before the present one."""


def target_of(dsn: str, model: str, to: str | None) -> str:
    """The version that a rollback goes to: the one that is asked for, else the champion before. Raises NothingToUndo."""
    if to is not None:
        return to
    with connect(dsn) as connection:
        stack = champions(lines(connection, model))
    if len(stack) < 2:
        raise NothingToUndo(
            f"{model} has had {'one champion' if stack else 'no champion'}, required one before it; name a version with --to"
        )
    return stack[-2]


def roll_back(model: str, to: str | None = None, *, reason: str = "", actor: str | None = None) -> Promoted:
    """Raises NothingToUndo, NoSuchVersion, RegistryUnreachable, EvidenceRefused, ReleaseUnderWay (a rollout is under way), WarmUpFailed."""
    settings = get_settings()
    where = addresses(settings)
    version = target_of(where.dsn(DATABASE), model, to)
    client = mlflow.MlflowClient()
    try:
        tags = client.get_model_version(model, version).tags
    except MlflowException as error:
        raise not_found(error, f"{model} version {version}", f"see `liftlock history {model}`") from None
    mover = promoter(settings)
    mover.verify(model, "champion", version, {})
    before = alias_version(client, model, "champion")
    said = reason or f"rolled back from version {before or 'none'}"
    wanted = Wanted(model, "champion", version, before, actor or getpass.getuser(), said, {}, "rollback")
    with ModelLock(where.dsn(DATABASE), model, "rollout"):
        moved = _serve_and_move(client, mover, wanted, tags)
    return Promoted(model, "champion", before, version, moved, said)


def _serve_and_move(client: mlflow.MlflowClient, mover: Promoter, wanted: Wanted, tags: dict[str, str]) -> bool:
    """Traffic first: the alias never names what is not served. Where the alias cannot be moved, the traffic goes back."""
    settings = get_settings()
    where = addresses(settings)
    recalled, engine_model = recall(client, wanted.model, str(wanted.version)), tags["liftlock.engine_model"]
    if (there := as_delivered(settings, recalled.spec)).delivery.target != "local":
        verify_pushed(recalled.version, recalled.modelcar)
        return _serve_there_and_move(client, mover, wanted, there)
    gateway, spec = gateway_of(settings, where, default_engine(settings)), recalled.spec
    before = gateway.splits().get(wanted.model) or Split(wanted.model, gateway.base_model)
    place = _place(settings, spec, engine_model)
    place_verified(recalled.version, recalled.modelcar, settings.adapters / engine_model, place.base)
    await_place(settings, place)
    warm_up(place.url, engine_model, WARM_UP, 1)
    gateway.set_stable(wanted.model, engine_model, place.url if place.own else None)
    done = False
    try:
        line = mover.move(wanted)
        done = True
    finally:
        if not done:
            gateway.set_stable(wanted.model, before.stable, before.stable_engine)
        end_unused(settings, wanted.model, spec.delivery.drain_seconds)
    return line is not None


def _serve_there_and_move(client: mlflow.MlflowClient, mover: Promoter, wanted: Wanted, spec: Release) -> bool:
    """The same on a cluster."""
    settings = get_settings()
    serve_on_cluster(settings, spec, read_version(client, wanted.model, str(wanted.version)))
    done = False
    try:
        line = mover.move(wanted)
        done = True
    finally:
        if not done and wanted.expected is not None:
            serve_on_cluster(settings, spec, read_version(client, wanted.model, wanted.expected))
    return line is not None


def _place(settings: Settings, spec: Release, engine_model: str) -> Place:
    """Where the champion is, where that engine can serve the version; else an engine of its own, which is started."""
    engine, here = engine_of(spec, resolve_base(spec.base_model, settings)), current_place(settings, spec.name)
    if covered(settings, here, engine):
        return here
    return start(settings, own_engine(settings, spec.name, engine, engine_model))
