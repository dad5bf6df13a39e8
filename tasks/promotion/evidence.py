"""Evidence: the digests that a promotion rests on are computed again from the artifacts, never believed.

A version's artifacts are in its MLflow run under `evidence/<first 12 of its evidence key>`, its adapter where its source
says, its image in the layout folder. The tags `liftlock.<name>` are the claims.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from evals.report import ReportInvalid, from_json
from serving.modelcar import DigestMismatch, LayoutInvalid, read_manifest, verify_layout
from tasks.digests import adapter_sha256, digest_of
from tasks.promotion.ledger import Alias

CANDIDATE = (
    "adapter_sha256", "base_sha256", "dataset_revision", "eval_report_sha256", "baseline_report_sha256", "decision_sha256",
)  # fmt: skip
STAGING = (*CANDIDATE, "fit_report_sha256", "modelcar")
REQUIRED: dict[Alias, tuple[str, ...]] = {"candidate": CANDIDATE, "staging": STAGING, "champion": STAGING}
SPLITS = ("train", "test", "replay")


class EvidenceRefused(Exception):
    """A digest is missing, or the artifact that it names is gone or has other bytes."""


def evidence_folder(key: str) -> str:
    """Within the run, of the version whose tag liftlock.evidence is `key`."""
    return f"evidence/{key[:12]}"


def keep_document(client: mlflow.MlflowClient, run_id: str, key: str, name: str, document: Any) -> None:
    """A JSON artifact of the version, with text or the values of a dataclass."""
    text = document if isinstance(document, str) else json.dumps(document, default=str)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(text)
        client.log_artifact(run_id, str(file), evidence_folder(key))


def read_document(client: mlflow.MlflowClient, version: ModelVersion, name: str) -> str:
    """What keep_document kept of the version. Raises KeyError for a version without evidence, MlflowException."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{evidence_folder(version.tags['liftlock.evidence'])}/{name}"
        return Path(client.download_artifacts(version.run_id, path, folder)).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Artifacts:
    """One version's artifacts, fetched when they are first asked for."""

    client: mlflow.MlflowClient
    version: ModelVersion
    folder: Path
    layout: Path

    @cached_property
    def tags(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.version.tags.items()}

    def document(self, name: str) -> str:
        path = f"{evidence_folder(self.tags.get('liftlock.evidence', ''))}/{name}"
        return Path(self.client.download_artifacts(self.version.run_id, path, str(self.folder))).read_text()

    def values(self, name: str) -> Any:
        return json.loads(self.document(name))

    def adapter(self) -> Path:
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=self.version.source, dst_path=str(self.folder / "adapter"))
        )

    def image_annotations(self) -> dict[str, str]:
        """Of an image every byte of which was read and has its digest."""
        digest = self.tags.get("liftlock.modelcar", "").rpartition("@")[2]
        verify_layout(self.layout, digest)
        return dict(read_manifest(self.layout, digest).get("annotations") or {})


def _report(name: str) -> Callable[[Artifacts], str]:
    return lambda found: from_json(found.document(name)).sha256


def _decision(found: Artifacts) -> str:
    decision = found.values("decision.json")
    reports = (decision["candidate_report_sha256"], decision["baseline_report_sha256"])
    named = (found.tags["liftlock.eval_report_sha256"], found.tags["liftlock.baseline_report_sha256"])
    if decision["verdict"] != "passed" or reports != named:
        raise EvidenceRefused(f"its gate decision is {decision['verdict']!r}, or rests on other reports")
    return digest_of(decision)


def _fit(found: Artifacts) -> str:
    fit = found.values("fit.json")
    if fit["verdict"] != "fits":
        raise EvidenceRefused(f"its fit report says {fit['verdict']!r}, required 'fits'")
    return digest_of(fit)


def _modelcar(found: Artifacts) -> str:
    annotations = found.image_annotations()
    for name in ("adapter", "base"):
        said, claimed = annotations.get(f"dev.liftlock.{name}-sha256"), found.tags.get(f"liftlock.{name}_sha256")
        if said != claimed:
            raise EvidenceRefused(f"its modelcar holds the {name} {said}, its tag says {claimed}")
    return found.tags["liftlock.modelcar"]


def _base(found: Artifacts) -> str:
    """The report says which base the adapter was asked on; from the build on the image holds the bytes."""
    if "liftlock.modelcar" in found.tags:
        return str(found.image_annotations().get("dev.liftlock.base-sha256"))
    return str(found.client.get_run(found.version.run_id).data.tags.get("liftlock.base_sha256"))


def _dataset(found: Artifacts) -> str:
    tags = found.client.get_run(found.version.run_id).data.tags
    splits = [(name, tags[f"liftlock.{name}_sha256"]) for name in SPLITS if f"liftlock.{name}_sha256" in tags]
    return digest_of(splits)


COMPUTED: dict[str, Callable[[Artifacts], str]] = {
    "adapter_sha256": lambda found: adapter_sha256(found.adapter()),
    "base_sha256": _base,
    "dataset_revision": _dataset,
    "eval_report_sha256": _report("candidate.json"),
    "baseline_report_sha256": _report("baseline.json"),
    "decision_sha256": _decision,
    "fit_report_sha256": _fit,
    "modelcar": _modelcar,
    "rollout_sha256": lambda found: digest_of(found.values("rollout.json")["steps"]),
    "version_sha256": lambda found: digest_of(
        found.version.name, str(found.version.version), found.tags["liftlock.evidence"]
    ),
}
ABSENT = (MlflowException, OSError, KeyError, ValueError, ReportInvalid, DigestMismatch, LayoutInvalid)


@dataclass(frozen=True)
class EvidenceInMlflow:
    """Checks a version against its artifacts. `layout` is the folder of modelcars."""

    tracking_uri: str
    layout: Path

    def __call__(self, model: str, alias: Alias, version: str, claimed: Mapping[str, str]) -> dict[str, str]:
        """Every digest that `alias` requires and every one that is claimed, each computed again. Raises EvidenceRefused."""
        client = mlflow.MlflowClient(self.tracking_uri)
        found = client.get_model_version(model, version)
        tags = {name.removeprefix("liftlock."): value for name, value in found.tags.items()}
        wanted = {name: claimed.get(name) or tags.get(name) for name in (*REQUIRED[alias], *claimed)}
        what = f"{model} version {version} may not become {alias}"
        missing = [name for name, value in wanted.items() if not value]
        if missing:
            raise EvidenceRefused(
                f"{what}: {', '.join(missing)} missing, required {', '.join(REQUIRED[alias])}; bring it there by a release"
            )
        with tempfile.TemporaryDirectory() as folder:
            artifacts = Artifacts(client, found, Path(folder), self.layout)
            for name, value in wanted.items():
                _check(what, name, str(value), artifacts)
        return {name: str(value) for name, value in wanted.items()}


def _check(what: str, name: str, claimed: str, artifacts: Artifacts) -> None:
    compute = COMPUTED.get(name)
    if compute is None:
        raise EvidenceRefused(f"{what}: nobody can check {name}; claim one of {', '.join(COMPUTED)}")
    try:
        observed = compute(artifacts)
    except EvidenceRefused as refused:
        raise EvidenceRefused(f"{what}: {refused}") from None
    except ABSENT as error:
        raise EvidenceRefused(f"{what}: {name} cannot be checked: {error}; release it again") from None
    if observed != claimed:
        raise EvidenceRefused(
            f"{what}: {name} of the artifacts is {observed[:80]}, the claim is {claimed[:80]}; release it again"
        )
