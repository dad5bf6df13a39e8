"""Evidence is computed again from a real MLflow's artifacts and a real image: every change of a byte or a tag is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import save_file

from evals.report import to_json
from serving.modelcar import manifest, put_manifest
from serving.modelcar.blobs import write_bytes
from serving.modelcar.image import sha256_digest
from tasks.digests import adapter_sha256, digest_of
from tasks.promotion.evidence import REQUIRED, EvidenceInMlflow, EvidenceRefused, evidence_folder, keep_document
from tests.fix_outcome import champion

SPLITS = {"train": "1" * 64, "test": "2" * 64}


@dataclass
class Released:
    """A version as a release leaves it."""

    client: MlflowClient
    uri: str
    model: str
    run_id: str
    key: str
    layout: Path

    def verify(self, alias: Any = "champion") -> dict[str, str]:
        return EvidenceInMlflow(self.uri, self.layout)(self.model, alias, "5", {})

    def tag(self, name: str, value: str) -> None:
        self.client.set_model_version_tag(self.model, "5", f"liftlock.{name}", value)


@pytest.fixture
def released(mlflow_client: MlflowClient, mlflow_server: str, registered: str, tmp_path: Path) -> Released:
    outcome, layout = champion(), tmp_path / "modelcars"
    assert outcome.pair
    assert outcome.decision
    assert outcome.fit
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({"a": np.zeros((2, 2), np.float32)}, str(adapter / "adapter_model.safetensors"))
    (adapter / "adapter_config.json").write_text("{}")
    splits = {f"liftlock.{name}_sha256": digest for name, digest in SPLITS.items()}
    run = mlflow_client.create_run("0", tags={"liftlock.base_sha256": "b" * 64, **splits})
    mlflow_client.log_artifacts(run.info.run_id, str(adapter), "adapter")
    evidence = {
        "adapter_sha256": adapter_sha256(adapter), "base_sha256": "b" * 64, "dataset_revision": digest_of([*SPLITS.items()]),
        "eval_report_sha256": outcome.pair.candidate.sha256, "baseline_report_sha256": outcome.pair.baseline.sha256,
        "decision_sha256": digest_of(asdict(outcome.decision)),
    }  # fmt: skip
    key = digest_of(evidence)
    annotations = {"dev.liftlock.adapter-sha256": evidence["adapter_sha256"], "dev.liftlock.base-sha256": "b" * 64}
    config, document = manifest([], annotations)
    layout.mkdir()
    write_bytes(layout, sha256_digest(config), config)
    digest, _ = put_manifest(layout, document, None)
    tags = {
        **evidence,
        "evidence": key,
        "modelcar": f"tickets@{digest}",
        "fit_report_sha256": digest_of(asdict(outcome.fit)),
    }
    documents: dict[str, Any] = {
        "candidate.json": to_json(outcome.pair.candidate), "baseline.json": to_json(outcome.pair.baseline),
        "decision.json": asdict(outcome.decision), "fit.json": asdict(outcome.fit),
    }  # fmt: skip
    for name, value in documents.items():
        keep_document(mlflow_client, run.info.run_id, key, name, value)
    source = f"{run.info.artifact_uri}/adapter"
    mlflow_client.create_model_version(
        registered, source, run.info.run_id, {f"liftlock.{k}": v for k, v in tags.items()}
    )
    return Released(mlflow_client, mlflow_server, registered, run.info.run_id, key, layout)


def test_what_a_release_left_holds(released: Released) -> None:
    assert set(released.verify()) == set(REQUIRED["champion"])
    assert set(released.verify("candidate")) == set(REQUIRED["candidate"])


def test_a_version_without_evidence_is_refused_in_words(released: Released) -> None:
    check = EvidenceInMlflow(released.uri, released.layout)
    with pytest.raises(
        EvidenceRefused, match=r"version 1 may not become staging: adapter_sha256, .*modelcar missing.*release"
    ):
        check(released.model, "staging", "1", {})


def _document(name: str, change: Callable[[Any], None]) -> Callable[[Released], None]:
    def make(released: Released) -> None:
        folder = released.client.download_artifacts(released.run_id, evidence_folder(released.key))
        value = json.loads((Path(folder) / name).read_text())
        change(value)
        keep_document(released.client, released.run_id, released.key, name, value)

    return make


def _adapter(released: Released) -> None:
    released.client.log_text(released.run_id, '{"r": 99}', "adapter/adapter_config.json")


def _image(released: Released) -> None:
    for blob in (released.layout / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes().replace(b'"', b"'", 1))


def _dataset(released: Released) -> None:
    released.client.set_tag(released.run_id, "liftlock.test_sha256", "3" * 64)


def _claim(name: str) -> Callable[[Released], None]:
    return lambda released: released.tag(name, "c" * 64)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("adapter_sha256", _adapter),
        ("modelcar|base_sha256", _image),
        ("dataset_revision", _dataset),
        ("eval_report_sha256", _document("candidate.json", lambda value: value["items"][0].update(answer="another"))),
        ("baseline_report_sha256", _document("baseline.json", lambda value: value.update(tool_versions=[]))),
        ("decision_sha256", _document("decision.json", lambda value: value.update(items_used=1))),
        ("gate decision is 'rejected'", _document("decision.json", lambda value: value.update(verdict="rejected"))),
        ("fit_report_sha256", _document("fit.json", lambda value: value.update(headroom_bytes=1))),
        ("fit report says 'does_not_fit'", _document("fit.json", lambda value: value.update(verdict="does_not_fit"))),
        *((f"{name} of the artifacts|rests on other|its tag says|is not a digest", _claim(name)) for name in REQUIRED["champion"]),
    ],
)  # fmt: skip
def test_a_change_of_an_artifact_or_a_claim_is_refused(released: Released, what: str, change: Any) -> None:
    change(released)
    with pytest.raises(EvidenceRefused, match=what):
        released.verify()
