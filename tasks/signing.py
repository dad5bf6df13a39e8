"""Who signs a release's modelcar, and what is said under the signature: provenance and the gate's verdict, by digest.

The key is the one that the settings name (a file, a token's or a key service's), else a pair in the state folder that is made
at first use (mode 0600).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.modelcar import ImageStore
from serving.modelcar.attest import (
    PROVENANCE,
    VERDICT,
    Material,
    Provenance,
    Verdict,
    provenance_predicate,
    verdict_predicate,
)
from serving.modelcar.content import FileDigest
from serving.modelcar.keys import PublicKey, ensure_key_pair, load_public_key
from serving.modelcar.sbom import SBOM, sbom
from serving.modelcar.sign import Signed, sign
from serving.modelcar.signer import Signer, open_signer
from tasks.artifacts import Adapter, EvalPair, FitReport, GateDecision, ModelVersion
from tasks.code_revision import code_revision, version_of_liftlock
from tasks.judge import decision_digest
from tasks.preflight import fit_digest
from tasks.settings import Settings
from tasks.spec import Release

BUILDER = "https://liftlock.dev/builder/release/v1"
FILES = ("task", "prompt", "cases")
Predicates = Mapping[str, Mapping[str, Any]]


def local_key(settings: Settings) -> Path:
    """Without its suffix."""
    return settings.state / "keys" / "liftlock"


def signing_key(settings: Settings) -> Signer:
    """Raises KeyInvalid."""
    if settings.signing_key is None:
        return ensure_key_pair(local_key(settings))
    file = settings.signing_passphrase_file
    passphrase = file.read_bytes().rstrip(b"\r\n") if file else b""
    return open_signer(settings.signing_key, passphrase)


def verification_key(settings: Settings) -> PublicKey:
    """What a rollout trusts: the key that the settings name, else the public half of the one that signs. Raises KeyInvalid."""
    if settings.verification_key is not None:
        return load_public_key(settings.verification_key)
    if settings.signing_key is not None:
        return signing_key(settings).public
    return load_public_key(local_key(settings).with_suffix(".pub"))


def predicates_of(
    version: ModelVersion, adapter: Adapter, pair: EvalPair, decision: GateDecision, fit: FitReport, spec: Release
) -> Predicates:
    """The release's evidence as in-toto predicates by type. The same evidence gives the same bytes."""
    return {
        PROVENANCE: provenance_predicate(_provenance(version, adapter, fit, spec)),
        VERDICT: verdict_predicate(_verdict(pair, decision, fit)),
    }


def _provenance(version: ModelVersion, adapter: Adapter, fit: FitReport, spec: Release) -> Provenance:
    materials = (
        Material("dataset", "sha256", adapter.dataset_revision),
        Material(f"base {adapter.base_model}", "sha256", adapter.base_sha256),
        Material("adapter", "sha256", adapter.sha256),
        Material("fit report", "sha256", fit_digest(fit)),
        code_revision(),
    )
    return Provenance(BUILDER, version_of_liftlock(), f"mlflow-run:{version.run_id}", materials, _parameters(spec))


def _parameters(spec: Release) -> dict[str, Any]:
    """What a person chose; files are named without their folders, which are this machine's."""
    document = json.loads(spec.model_dump_json())
    chosen = {key: document[key] for key in ("name", "training", "serving", "delivery", "modelcar")}
    gate = {key: Path(value).name if key in FILES and value else value for key, value in document["gate"].items()}
    return {**chosen, "base_model": Path(spec.base_model).name, "gate": gate}


def _verdict(pair: EvalPair, decision: GateDecision, fit: FitReport) -> Verdict:
    evidence = {
        "eval report": pair.candidate.sha256,
        "baseline report": pair.baseline.sha256,
        "gate decision": decision_digest(decision),
        "fit report": fit_digest(fit),
    }
    passed = tuple(rule.name for rule in decision.rules if rule.verdict == "passed")
    failed = tuple(rule.name for rule in decision.rules if rule.verdict != "passed")
    return Verdict(decision.verdict, evidence, passed, failed)


def sign_modelcar(
    store: ImageStore,
    digest: str,
    key: Signer,
    identity: str,
    predicates: Predicates,
    files: Sequence[FileDigest],
    dataset_revision: str,
) -> Signed:
    """The bill of materials names the dataset, which the image's own annotations leave out: they are of bytes alone."""
    annotations = store.get_manifest(digest).json().get("annotations") or {}
    listed = sbom(identity, digest, {**annotations, "dev.liftlock.dataset-sha256": dataset_revision}, files)
    return sign(store, digest, key, identity, predicates={**predicates, SBOM: listed}, files=files)
