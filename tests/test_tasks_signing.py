"""What a release signs and what a rollout refuses: the evidence under the signature, the ledger's word, and the engine's base."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.modelcar import Modelcar, model_layers, open_store, parse_reference, write_layout
from serving.modelcar.attest import PROVENANCE, VERDICT
from serving.modelcar.content import ContentMismatch, hash_sources
from serving.modelcar.keys import PrivateKey, new_key
from serving.modelcar.sbom import SBOM
from serving.modelcar.signed import SignatureForeign, Unsigned, VerificationFailed, read_statements
from serving.modelcar.verify import EvidenceMissing, SignatureReplaced, TagMoved, VerdictRefused
from tasks.settings import Settings
from tasks.signing import local_key, predicates_of, sign_modelcar, signing_key, verification_key
from tasks.spec import Release, load_release
from tasks.verify_modelcar import check, check_base
from tests import fix_outcome as made
from tests.fix_modelcar import make_adapter, make_base
from tests.fix_stack import SUITE

IDENTITY = "liftlock/router"


@pytest.fixture(scope="module")
def spec() -> Release:
    return load_release(SUITE / "release.yaml")


def predicates(spec: Release, verdict: str | None = None) -> dict[str, Any]:
    whole = made.champion()
    assert whole.version and whole.adapter and whole.pair and whole.decision and whole.fit
    decision = replace(whole.decision, verdict=verdict) if verdict else whole.decision  # type: ignore[arg-type]
    return dict(predicates_of(whole.version, whole.adapter, whole.pair, decision, whole.fit, spec))


def build_signed(folder: Path, key: PrivateKey, said: dict[str, Any]) -> Modelcar:
    """In `folder`/layout under the tag router-1."""
    layers = model_layers(make_base(folder / "base"), make_adapter(folder / "adapter"), "router")
    built = write_layout(folder / "layout", layers, {}, "router-1", name=IDENTITY)
    with open_store(parse_reference(f"oci:{folder / 'layout'}")) as store:
        signed = sign_modelcar(store, built.digest, key, IDENTITY, said, hash_sources(layers), "d" * 64)
    return replace(built, signature=signed.payload_digest)


def reference(folder: Path, modelcar: Modelcar, tag: str = "router-1") -> Any:
    return parse_reference(f"oci:{folder / 'layout'}:{tag}@{modelcar.digest}")


def test_the_statements_name_dataset_base_reports_and_fit(spec: Release, tmp_path: Path) -> None:
    key = new_key()
    modelcar = build_signed(tmp_path, key, predicates(spec))
    verified = check(reference(tmp_path, modelcar), key.public, modelcar, (modelcar.digest,))
    assert (verified.verdict, verified.digest) == ("PASSED", modelcar.digest)
    with open_store(reference(tmp_path, modelcar)) as store:
        said = {
            one.predicate_type: one.predicate for one in read_statements(store, modelcar.digest, key.public).values()
        }
    materials = {
        one["name"]: set(one["digest"].values()) for one in said[PROVENANCE]["buildDefinition"]["resolvedDependencies"]
    }
    whole = made.champion()
    assert whole.adapter and whole.pair
    assert materials["dataset"] == {whole.adapter.dataset_revision}
    assert materials[f"base {whole.adapter.base_model}"] == {whole.adapter.base_sha256}
    assert materials["adapter"] == {whole.adapter.sha256}
    assert {"fit report", "code"} <= set(materials)
    named = {one["name"]: one["digest"]["sha256"] for one in said[VERDICT]["configuration"]}
    assert named["eval report"] == whole.pair.candidate.sha256
    assert {"baseline report", "gate decision", "fit report"} <= set(named)
    assert "d" * 64 in str(said[SBOM])


def test_no_path_of_this_machine_is_signed(spec: Release) -> None:
    assert spec.gate.task.is_absolute()
    said = str(predicates(spec))
    assert str(SUITE) not in said
    assert "ticket_router.yaml" in said


def test_the_same_evidence_gives_the_same_signature(spec: Release, tmp_path: Path) -> None:
    key = new_key()
    first, second = (build_signed(tmp_path / name, key, predicates(spec)) for name in ("a", "b"))
    assert first.signature == second.signature != ""


REFUSED = {
    "unsigned": Unsigned,
    "foreign": SignatureForeign,
    "not passed": VerdictRefused,
    "not in the ledger": EvidenceMissing,
    "signed anew": SignatureReplaced,
    "tag moved": TagMoved,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_rollout_refuses(spec: Release, tmp_path: Path, case: str) -> None:
    key = new_key()
    verdict = "inconclusive" if case == "not passed" else None
    modelcar = build_signed(tmp_path, key, predicates(spec, verdict))
    recorded = () if case == "not in the ledger" else (modelcar.digest,)
    if case == "signed anew":
        modelcar = replace(modelcar, signature=f"sha256:{'0' * 64}")
    if case == "tag moved":
        other = model_layers(tmp_path / "base", make_adapter(tmp_path / "other", 2.0), "router")
        write_layout(tmp_path / "layout", other, {}, "router-1", name=IDENTITY)
    if case == "unsigned":
        shutil.rmtree(tmp_path / "layout")
        layers = model_layers(tmp_path / "base", tmp_path / "adapter", "router")
        modelcar = write_layout(tmp_path / "layout", layers, {}, "router-1", name=IDENTITY)
    trusted = new_key().public if case == "foreign" else key.public
    with pytest.raises(VerificationFailed) as caught:
        check(reference(tmp_path, modelcar), trusted, modelcar, recorded)
    assert type(caught.value) is REFUSED[case]


def test_an_engine_with_another_base_is_refused(spec: Release, tmp_path: Path) -> None:
    key = new_key()
    modelcar = build_signed(tmp_path, key, predicates(spec))
    files = check(reference(tmp_path, modelcar), key.public, modelcar, (modelcar.digest,)).files
    check_base(tmp_path / "base", files)
    (tmp_path / "base" / "tokenizer.json").write_text('{"version": "2.0"}')
    (tmp_path / "base" / "chat_template.jinja").unlink()
    with pytest.raises(ContentMismatch, match=r"differ in chat_template.jinja, tokenizer.json;"):
        check_base(tmp_path / "base", files)


def test_the_local_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    first = signing_key(settings)
    private = local_key(settings).with_suffix(".key")
    assert private.stat().st_mode & 0o777 == 0o600
    assert signing_key(settings).public == first.public == verification_key(settings)


def test_a_named_key_signs_and_another_may_be_trusted(tmp_path: Path) -> None:
    from serving.modelcar.keys import write_key_pair

    ours, theirs = new_key(), new_key()
    private, public = write_key_pair(ours, tmp_path / "ours", b"secret")
    (tmp_path / "passphrase").write_text("secret\n")
    named = Settings(state=tmp_path, signing_key=str(private), signing_passphrase_file=tmp_path / "passphrase")
    assert signing_key(named).public == verification_key(named) == ours.public
    _, other = write_key_pair(theirs, tmp_path / "theirs", b"")
    assert verification_key(named.model_copy(update={"verification_key": other})) == theirs.public
    assert public.is_file()
