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
from tasks.promotion.ledger import ALIASES
from tasks.spec import Release


class NoSuchVersion(LookupError):
    """MLflow has no such model, alias or version."""


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
    """`NAME`, `NAME@alias` or `NAME/version` to (name, version); the bare name means its candidate. Raises NoSuchVersion."""
    name, at, alias = text.partition("@")
    name, slash, number = name.partition("/") if not at else (name, "", "")
    try:
        if slash:
            return name, str(client.get_model_version(name, number).version)
        return name, str(client.get_model_version_by_alias(name, alias if at else "candidate").version)
    except MlflowException as error:
        raise NoSuchVersion(
            f"{text}: {error.message}; give NAME, NAME@alias (one of {', '.join(ALIASES)}) or NAME/version"
        ) from None


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
