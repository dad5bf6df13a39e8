"""Where a model was delivered to last: commands that have no release.yaml at hand read, undo and go back there."""

from __future__ import annotations

from pathlib import Path

import mlflow

from serving.delivery.target import ClusterTarget
from tasks.cluster_target import target_of
from tasks.ledger import alias_version
from tasks.promotion.recall import recall_spec
from tasks.rollouts import rollouts_of
from tasks.settings import Settings
from tasks.spec import DeliverySpec, Release
from tasks.whole_file import write_whole


def keep_delivery(settings: Settings, spec: Release) -> None:
    """Before the first step; a release to this machine is kept too, so that the last one counts."""
    write_whole(_file(settings, spec.name), spec.delivery.model_dump_json(indent=2))


def as_delivered(settings: Settings, spec: Release) -> Release:
    """The spec with the delivery of the model's last rollout; its own where this state folder has seen none."""
    file = _file(settings, spec.name)
    if not file.exists():
        return spec
    return spec.model_copy(update={"delivery": DeliverySpec.model_validate_json(file.read_text())})


def last_target(settings: Settings, model: str) -> str:
    """local, gitops or kubernetes; local where this state folder has seen no rollout."""
    file = _file(settings, model)
    return DeliverySpec.model_validate_json(file.read_text()).target if file.exists() else "local"


def delivered_to(settings: Settings, model: str) -> ClusterTarget | None:
    """To read and to undo; None where the last rollout was on this machine. Raises DeliveryUnset, RemoteRefused, EvidenceRefused."""
    client = mlflow.MlflowClient()
    versions = (alias_version(client, model, alias) for alias in ("staging", "champion"))
    version = next((each for each in versions if each is not None), None)
    if version is None:
        return None
    spec = as_delivered(settings, recall_spec(client, model, version))
    if spec.delivery.target == "local":
        return None
    return target_of(settings, spec, None, rollouts_of(settings, model), lambda _: None)


def _file(settings: Settings, model: str) -> Path:
    return rollouts_of(settings, model).folder / "delivery.json"
