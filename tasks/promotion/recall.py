"""A registered version's values again, from its artifacts in MLflow: what a later promotion needs of the release that made it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter

from serving.fit import FitReport
from serving.modelcar import Modelcar
from tasks.artifacts import Dataset, ModelVersion
from tasks.dataset import read_dataset
from tasks.promotion.evidence import EvidenceRefused, evidence_folder, read_document
from tasks.promotion.registry import RegistryUnreachable
from tasks.promotion.version_name import FORMS, NoSuchVersion, asked
from tasks.spec import Release


@dataclass(frozen=True)
class Recalled:
    """What a release had in hand when it came to its rollout."""

    version: ModelVersion
    modelcar: Modelcar
    fit: FitReport
    spec: Release

    def dataset(self) -> Dataset:
        """From the files that the spec names, as they are now: a canary is asked their test items. Raises DatasetRefused."""
        return read_dataset(self.spec)


def find_version(client: mlflow.MlflowClient, text: str) -> tuple[str, str]:
    """Name and version of what `asked` reads. Raises NoSuchVersion, RegistryUnreachable."""
    name, alias, number = asked(text)
    try:
        if number is not None:
            return name, str(client.get_model_version(name, number).version)
        return name, str(client.get_model_version_by_alias(name, str(alias)).version)
    except MlflowException as error:
        raise not_found(error, text, FORMS) from None


def not_found(error: MlflowException, what: str, next_step: str) -> NoSuchVersion | RegistryUnreachable:
    """MLflow's client has one exception for what is not there and for a server that is not there."""
    if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
        address = mlflow.get_tracking_uri()
        return RegistryUnreachable(
            f"{what} cannot be looked up: MLflow at {address} does not answer ({error.message[:300]}); start it (`liftlock up`), "
            "then run this again"
        )
    return NoSuchVersion(f"{what}: {error.message}; {next_step}")


def recall_spec(client: mlflow.MlflowClient, name: str, version: str) -> Release:
    """Of the release that made the version. Raises EvidenceRefused."""
    try:
        found = client.get_model_version(name, version)
        return Release.model_validate_json(read_document(client, found, "spec.json"))
    except (MlflowException, OSError, KeyError, ValueError) as error:
        raise EvidenceRefused(
            f"{name} version {version}: its spec cannot be read ({str(error)[:200]}); release it again"
        ) from None


def recall(client: mlflow.MlflowClient, name: str, version: str) -> Recalled:
    """Raises EvidenceRefused where an artifact is missing or cannot be read."""
    found = client.get_model_version(name, version)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = evidence_folder(found.tags["liftlock.evidence"])
            home = Path(client.download_artifacts(found.run_id, path, folder))
            return Recalled(
                ModelVersion(name, version, found.run_id, found.source, "", tuple(sorted(found.aliases))),
                TypeAdapter(Modelcar).validate_json((home / "modelcar.json").read_text()),
                TypeAdapter(FitReport).validate_json((home / "fit.json").read_text()),
                Release.model_validate_json((home / "spec.json").read_text()),
            )
    except (MlflowException, OSError, KeyError, ValueError) as error:
        raise EvidenceRefused(
            f"{name} version {version} cannot be served: its evidence is incomplete ({str(error)[:200]}); release it again"
        ) from None
