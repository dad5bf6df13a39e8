"""What the stages call to move an alias or to see where it is, with the parts that the settings name.

The move itself, its journal, the evidence and the ledger's chain are in tasks/promotion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import mlflow
from mlflow.exceptions import MlflowException

from tasks.promotion.database import DATABASE as DATABASE
from tasks.promotion.database import Connect, connect
from tasks.promotion.events import Event, EventNotSent, PrefectEvents
from tasks.promotion.evidence import EvidenceInMlflow
from tasks.promotion.ledger import Alias, Fault, Line, lines, verify
from tasks.promotion.move import AliasMoved as AliasMoved
from tasks.promotion.move import Promoter, Wanted
from tasks.promotion.registry import MlflowRegistry, RegistryRefused, RegistryUnreachable
from tasks.run import current_run
from tasks.settings import Settings, get_settings
from tasks.stack.addresses import addresses


def promoter(settings: Settings | None = None) -> Promoter:
    """The real parts: the ledger's database, MLflow, the layout folder and Prefect. Raises StackDown."""
    settings = settings or get_settings()
    where = addresses(settings)
    registry, events = MlflowRegistry(where.mlflow), PrefectEvents(where.prefect_api)

    def tell(line: Line) -> None:
        """MLflow's page tells the line too, and keeps its hash where a change of Postgres cannot reach it."""
        if line.to_version is not None:
            _tag(registry, line)
        events(line)

    verified = EvidenceInMlflow(where.mlflow, settings.state / "modelcars")
    return Promoter(partial(connect, where.dsn(DATABASE)), registry, verified, tell)


def ledger_database(settings: Settings | None = None) -> Connect:
    """Raises StackDown."""
    return partial(connect, addresses(settings or get_settings()).dsn(DATABASE))


def event_sender(settings: Settings | None = None) -> Callable[[Event], None]:
    """Raises StackDown; what it returns raises EventNotSent."""
    return PrefectEvents(addresses(settings or get_settings()).prefect_api).send


def _tag(registry: MlflowRegistry, line: Line) -> None:
    said = f"{line.at[:19]}Z {line.kind} {line.alias} {line.from_version or 'none'} → {line.to_version} by {line.actor}: {line.reason}"
    try:
        registry.tag(line.model, str(line.to_version), "liftlock.ledger", f"{line.id}:{line.hash}")
        registry.tag(line.model, str(line.to_version), f"liftlock.{line.alias}", said[:5000])
    except RegistryUnreachable as error:
        raise EventNotSent(str(error)) from None
    except RegistryRefused:
        return  # the version was deleted since


def alias_version(client: mlflow.MlflowClient, model: str, alias: Alias) -> str | None:
    """The version the alias names in MLflow, None where there is no such alias or model."""
    try:
        return str(client.get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def move_alias(
    dsn: str, model: str, alias: Alias, version: str, *, expected: str | None, reason: str, evidence: Mapping[str, str]
) -> Line | None:
    """Point `alias` at `version` if it still points at `expected` (None: nowhere), in the name of who asked for this run.

    Idempotent. Raises as Promoter.move does.
    """
    parts, run = promoter(), current_run()
    mover = Promoter(partial(connect, dsn), parts.registry, parts.verify, parts.tell)
    said = f"{run.reason}; {reason}" if run.reason else reason
    return mover.move(Wanted(model, alias, version, expected, run.actor, said, evidence))


def moves(dsn: str, model: str) -> list[Line]:
    """The model's lines, oldest first."""
    with connect(dsn) as connection:
        return lines(connection, model)


def verify_ledger() -> tuple[int, list[Fault]]:
    """Number of lines and what is wrong with them; the tags `liftlock.ledger` in MLflow are the witnesses. Raises StackDown."""
    where = addresses(get_settings())
    client = mlflow.MlflowClient(where.mlflow)
    with connect(where.dsn(DATABASE)) as connection:
        found = lines(connection)
        return verify(connection, _witnesses(client, {line.model for line in found}))


def _witnesses(client: mlflow.MlflowClient, models: Iterable[str]) -> dict[int, str]:
    tags = [
        version.tags.get("liftlock.ledger", "")
        for model in models
        for version in client.search_model_versions(f"name = '{model}'")
    ]
    pairs = [tag.split(":") for tag in tags if tag.count(":") == 1]
    return {int(number): digest for number, digest in pairs if number.isdecimal()}
