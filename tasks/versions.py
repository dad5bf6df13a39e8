"""What is known about a model's versions: where its aliases are, what is served, and how two versions differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from serving.rollout.local import LocalTarget
from tasks.ledger import DATABASE, alias_version
from tasks.promotion.database import connect
from tasks.promotion.ledger import ALIASES, position
from tasks.promotion.version_name import NoSuchVersion
from tasks.settings import get_settings
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of

Pairs = dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True)
class State:
    """`aliases` holds, for each alias, the version in MLflow and the one in the ledger; `served` is the engine's name of
    what has all of the traffic, `served_version` its version where one has that name.
    """

    model: str
    aliases: Mapping[str, tuple[str | None, str | None]]
    served: str
    served_version: str | None

    @property
    def coherent(self) -> bool:
        """MLflow and ledger agree, and the champion, where there is one, is what is served."""
        champion = self.aliases["champion"][0]
        agree = all(registry == ledger for registry, ledger in self.aliases.values())
        return agree and (champion is None or champion == self.served_version)


def state_of(model: str) -> State:
    """Raises NoSuchVersion, StackDown."""
    settings = get_settings()
    where = addresses(settings)
    client = mlflow.MlflowClient(where.mlflow)
    versions = client.search_model_versions(f"name = '{model}'")
    if not versions:
        raise NoSuchVersion(f"MLflow has no version of {model!r}; `liftlock release` registers one")
    with connect(where.dsn(DATABASE)) as connection:
        lines = {alias: position(connection, model, alias) for alias in ALIASES}
    aliases: dict[str, tuple[str | None, str | None]] = {
        alias: (alias_version(client, model, alias), line.to_version if line else None) for alias, line in lines.items()
    }
    served = LocalTarget(gateway_of(settings, where, default_engine(settings))).stable(model)
    names = [str(one.version) for one in versions if one.tags.get("liftlock.engine_model") == served]
    champion = aliases["champion"][0]
    return State(model, aliases, served, champion if champion in names else next(iter(names), None))


def differences(model: str, one: str, other: str) -> dict[str, Pairs]:
    """metrics, parameters, data and digests whose values differ, as (of `one`, of `other`). Raises NoSuchVersion."""
    left, right = _facts(model, one), _facts(model, other)
    return {group: _pairs(left[group], right[group]) for group in left}


def _pairs(left: Mapping[str, str], right: Mapping[str, str]) -> Pairs:
    names = sorted({*left, *right})
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _facts(model: str, version: str) -> dict[str, dict[str, str]]:
    client = mlflow.MlflowClient()
    try:
        found = client.get_model_version(model, version)
        run = client.get_run(found.run_id).data
    except MlflowException as error:
        said = "there is none in MLflow" if error.error_code == "RESOURCE_DOES_NOT_EXIST" else error.message
        raise NoSuchVersion(f"{model} version {version}: {said}; see `liftlock history {model}`") from None
    tags = {key.removeprefix("liftlock."): value for key, value in found.tags.items() if key.startswith("liftlock.")}
    data = {key.removeprefix("liftlock."): value for key, value in run.tags.items() if key.endswith("_sha256")}
    digests = {key: tags[key] for key in tags if key.endswith("_sha256") or key in ("modelcar", "dataset_revision")}
    metrics = {key: tags[key] for key in ("score", "difference", "items", "verdict", "fit") if key in tags}
    return {
        "metrics": {**metrics, **{key: f"{value:.4f}" for key, value in run.metrics.items()}},
        "parameters": dict(run.params),
        "data": {key: value for key, value in data.items() if key.startswith(("train", "test", "replay"))},
        "digests": digests,
    }
