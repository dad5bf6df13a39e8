"""Keyless signatures: made with an identity token by a stand-in of Fulcio and Rekor, judged by the library and by cosign.

The public instance is not asked.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.signing_ways import by_identity, judge_identity
from serving.modelcar import open_store, parse_reference
from serving.modelcar.attest import VERDICT, Verdict, verdict_predicate
from serving.modelcar.keyless import BundleRefused, Identity, KeylessSigner, KeylessVerifier, SigstoreFailed
from serving.modelcar.keyless_image import sign_keyless, verify_keyless
from serving.modelcar.keys import KeyInvalid, new_key
from serving.modelcar.reference import Reference
from serving.modelcar.referrers import list_referrers, read_attachment
from serving.modelcar.sign import sign
from serving.modelcar.signature import tag_of
from serving.modelcar.signed import (
    SIGN,
    AttestationMissing,
    AttestationTampered,
    IndexTampered,
    SignatureForeign,
    SignatureTampered,
    Unsigned,
    VerificationFailed,
)
from serving.modelcar.verify import RELEASE, LayerTampered, VerdictRefused, verify
from tests.fix_modelcar import build
from tests.fix_signing import IDENTITY, PREDICATES
from tests.fix_sigstore import ISSUER, WORKFLOW, StandIn, identity_token

WANTED = Identity(WORKFLOW, ISSUER)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def image(tmp_path: Path) -> Reference:
    layout, built = build(tmp_path, tag="router-1")
    return parse_reference(f"oci:{layout}:router-1@{built.digest}")


def sign_here(image: Reference, sigstore: StandIn, token: str | None = None, **more: Any) -> None:
    signer = KeylessSigner(token or identity_token(), sigstore.config)
    with open_store(image) as store:
        sign_keyless(store, str(image.digest), signer, IDENTITY, **{"predicates": PREDICATES, **more})


def verify_here(image: Reference, sigstore: StandIn, wanted: Identity = WANTED) -> Any:
    with open_store(image) as store:
        return verify_keyless(image, KeylessVerifier(wanted, sigstore.config), store, required=RELEASE)


def test_who_has_the_identity_signs_and_is_named(image: Reference, sigstore: StandIn) -> None:
    with pytest.raises(Unsigned):
        verify_here(image, sigstore)
    sign_here(image, sigstore)
    verified = verify_here(image, sigstore)
    assert (verified.key, verified.identity, verified.verdict) == (f"{WORKFLOW} of {ISSUER}", IDENTITY, "PASSED")
    assert {kind for kind, _ in verified.statements} == set(RELEASE)
    assert len(sigstore.log.leaves) == len(RELEASE)  # each is in the log


@pytest.mark.parametrize(
    "other",
    [Identity(WORKFLOW.replace("main", "dev"), ISSUER), Identity(WORKFLOW, "https://accounts.google.com")],
    ids=["subject", "issuer"],
)
def test_another_identity_is_not_taken(image: Reference, sigstore: StandIn, other: Identity) -> None:
    sign_here(image, sigstore)
    with pytest.raises(SignatureForeign, match="none is by"):
        verify_here(image, sigstore, other)


def test_another_instance_with_the_same_names_is_not_trusted(
    image: Reference, sigstore: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = StandIn(tmp_path / "other")
    sign_here(image, sigstore)
    with pytest.raises(AttestationTampered):
        verify_here(image, other)
    other.server.server_close()


def test_a_person_signs_with_an_address(image: Reference, sigstore: StandIn) -> None:
    sign_here(image, sigstore, identity_token(iss="https://accounts.google.com", email="me@example.com"))
    verified = verify_here(image, sigstore, Identity("me@example.com", "https://accounts.google.com"))
    assert verified.key == "me@example.com of https://accounts.google.com"


def test_signing_again_takes_the_place_and_a_failed_verdict_is_refused(image: Reference, sigstore: StandIn) -> None:
    sign_here(image, sigstore)
    with open_store(image) as store:
        before = len(list_referrers(store, str(image.digest)))
    rejected = verdict_predicate(Verdict("rejected", {"eval report": "b" * 64}, (), ("worse",)))
    sign_here(image, sigstore, predicates=PREDICATES | {VERDICT: rejected})
    with open_store(image) as store:
        assert len(list_referrers(store, str(image.digest))) == before
    with pytest.raises(VerdictRefused, match="FAILED"):
        verify_here(image, sigstore)


def test_a_key_and_an_identity_sign_one_image(image: Reference, sigstore: StandIn) -> None:
    key = new_key()
    sign_here(image, sigstore)
    with open_store(image) as store:
        sign(store, str(image.digest), key, IDENTITY, predicates=PREDICATES)
    sign_here(image, sigstore)
    assert verify_here(image, sigstore).verdict == "PASSED"
    with open_store(image) as store:
        assert verify(image, key.public, store, required=RELEASE).verdict == "PASSED"


@pytest.mark.parametrize(
    ("token", "said"),
    [("no token", "malformed"), (identity_token(seconds=-60), "malformed|validity")],
)
def test_a_token_that_is_none_is_refused(sigstore: StandIn, token: str, said: str) -> None:
    with pytest.raises(KeyInvalid, match=said) as refused:
        KeylessSigner(token, sigstore.config)
    assert token not in str(refused.value) or token == "no token"


def test_services_that_refuse_or_are_down_are_one_error(image: Reference, sigstore: StandIn, tmp_path: Path) -> None:
    header, claims, _ = identity_token().split(".")
    with pytest.raises(SigstoreFailed):  # forged: the authority checks the issuer's signature
        KeylessSigner(f"{header}.{claims}.{base64.urlsafe_b64encode(b'x' * 32).decode().rstrip('=')}", sigstore.config)
    signer = KeylessSigner(identity_token(), sigstore.config)
    sigstore.down = True
    with open_store(image) as store, pytest.raises(SigstoreFailed):
        sign_keyless(store, str(image.digest), signer, IDENTITY)
    with pytest.raises(Unsigned):
        verify_here(image, sigstore)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(KeyInvalid, match="no client trust config"):
        KeylessVerifier(WANTED, tmp_path / "none.json")


# --- tampering


def edited_bundle(change: Callable[[dict[str, Any]], None]) -> Callable[[Any, Reference], None]:
    """Each bundle is changed and stored again with right digests."""

    def edit(store: Any, image: Reference) -> None:
        index = store.get_manifest(tag_of(str(image.digest), "")).json()
        for entry in index["manifests"]:
            manifest = store.get_manifest(entry["digest"]).json()
            bundle = json.loads(store.get_blob(manifest["layers"][0]["digest"], 1 << 20))
            change(bundle)
            data = json.dumps(bundle).encode()
            manifest["layers"][0].update(digest=store.put_blob(data), size=len(data))
            stored = json.dumps(manifest).encode()
            entry.update(digest=store.put_manifest(stored, None), size=len(stored))
        store.put_manifest(json.dumps(index).encode(), tag_of(str(image.digest), ""))

    return edit


def edited_index(change: Callable[[dict[str, Any]], None]) -> Callable[[Any, Reference], None]:
    def edit(store: Any, image: Reference) -> None:
        tag = tag_of(str(image.digest), "")
        index = store.get_manifest(tag).json()
        change(index)
        store.put_manifest(json.dumps(index).encode(), tag)

    return edit


def other_payload(bundle: dict[str, Any]) -> None:
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"router", b"rooter")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


def flipped(bundle: dict[str, Any], *path: str | int) -> None:
    *way, last = path
    value: Any = bundle
    for step in way:
        value = value[step]
    data = bytearray(base64.b64decode(value[last]))
    data[len(data) // 2] ^= 1
    value[last] = base64.b64encode(bytes(data)).decode()


ENTRY = ("verificationMaterial", "tlogEntries", 0)
Refused = type[VerificationFailed] | tuple[type[VerificationFailed], ...]
TAMPERING: dict[str, tuple[Callable[[Any, Reference], None], Refused]] = {
    "payload": (edited_bundle(other_payload), AttestationTampered),
    "signature": (edited_bundle(lambda b: flipped(b, "dsseEnvelope", "signatures", 0, "sig")), AttestationTampered),
    "no log entry": (edited_bundle(lambda b: b["verificationMaterial"].update(tlogEntries=[])), AttestationTampered),
    "log body": (edited_bundle(lambda b: flipped(b, *ENTRY, "canonicalizedBody")), AttestationTampered),
    "log root": (edited_bundle(lambda b: flipped(b, *ENTRY, "inclusionProof", "rootHash")), AttestationTampered),
    "promise": (
        edited_bundle(lambda b: flipped(b, *ENTRY, "inclusionPromise", "signedEntryTimestamp")), AttestationTampered,
    ),
    "log time": (
        edited_bundle(lambda b: b["verificationMaterial"]["tlogEntries"][0].update(integratedTime="1700000000")),
        AttestationTampered,
    ),
    "certificate": (
        edited_bundle(lambda b: flipped(b, "verificationMaterial", "certificate", "rawBytes")),
        (AttestationTampered, SignatureForeign),
    ),
    "a key's bundle": (
        edited_bundle(lambda b: b.update(verificationMaterial={"publicKey": {"hint": "x"}, "tlogEntries": []})),
        SignatureForeign,
    ),
    "verdict dropped": (
        edited_index(lambda i: i.update(manifests=[e for e in i["manifests"]
                                                   if e["annotations"]["dev.sigstore.bundle.predicateType"] != VERDICT])),
        AttestationMissing,
    ),
    "signature dropped": (
        edited_index(lambda i: i.update(manifests=[e for e in i["manifests"]
                                                   if e["annotations"]["dev.sigstore.bundle.predicateType"] != SIGN])),
        SignatureForeign,
    ),
    "all dropped": (edited_index(lambda i: i.update(manifests=[])), Unsigned),
    "no list": (edited_index(lambda i: i.pop("manifests")), IndexTampered),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_refused_and_named(image: Reference, sigstore: StandIn, kind: str) -> None:
    sign_here(image, sigstore)
    tamper, refused = TAMPERING[kind]
    with open_store(image) as store:
        tamper(store, image)
    with pytest.raises(refused) as caught:
        verify_here(image, sigstore)
    assert len(str(caught.value)) > 40


def test_signatures_moved_from_another_image_are_refused(image: Reference, sigstore: StandIn, tmp_path: Path) -> None:
    sign_here(image, sigstore)
    with open_store(image) as store:
        other = json.dumps(store.get_manifest(str(image.digest)).json() | {"annotations": {"other": "image"}}).encode()
        digest = store.put_manifest(other, "other")
        index = store.get_manifest(tag_of(str(image.digest), "")).json()
        for entry in index["manifests"]:
            manifest = store.get_manifest(entry["digest"]).json()
            manifest["subject"].update(digest=digest, size=len(other))
            stored = json.dumps(manifest).encode()
            entry.update(digest=store.put_manifest(stored, None), size=len(stored))
        store.put_manifest(json.dumps(index).encode(), tag_of(digest, ""))
    with pytest.raises(SignatureTampered, match="another image"):
        verify_here(parse_reference(f"oci:{image.folder}@{digest}"), sigstore)


def test_a_changed_layer_is_refused(image: Reference, sigstore: StandIn) -> None:
    sign_here(image, sigstore)
    with open_store(image) as store:
        layer = store.get_manifest(str(image.digest)).json()["layers"][0]["digest"]
    path = Path(str(image.folder)) / "blobs" / "sha256" / layer.removeprefix("sha256:")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\1")
    with pytest.raises(LayerTampered):
        verify_here(image, sigstore)


# --- programs of others


NAMES = {VERDICT: "verdict", SIGN: "sign"}


def test_cosign_verifies_the_bundles(image: Reference, sigstore: StandIn, tmp_path: Path, cosign: str) -> None:
    """cosign 2.5's verify-attestation asks the network for roots all the same; verify-blob-attestation does not."""
    sign_here(image, sigstore)
    with open_store(image) as store:
        (tmp_path / "manifest").write_bytes(store.get_manifest(str(image.digest)).data)
        for entry in list_referrers(store, str(image.digest)):
            name = NAMES.get(entry["annotations"]["dev.sigstore.bundle.predicateType"], "another")
            (tmp_path / name).write_bytes(read_attachment(store, str(image.digest), entry).data)

    def run(bundle: str, kind: str, subject: str) -> int:
        return subprocess.run(
            [cosign, "verify-blob-attestation", "--new-bundle-format", "--trusted-root", sigstore.root, "--bundle", bundle,
             "--certificate-identity", subject, "--certificate-oidc-issuer", ISSUER, "--type", kind, "manifest"],
            cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, timeout=60, check=False,
        ).returncode  # fmt: skip

    assert [run("verdict", VERDICT, WORKFLOW), run("sign", SIGN, WORKFLOW)] == [0, 0]
    assert run("verdict", VERDICT, WORKFLOW.replace("main", "dev")) != 0
    bundle = json.loads((tmp_path / "verdict").read_text())
    bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1700000000"
    (tmp_path / "verdict").write_text(json.dumps(bundle))
    assert run("verdict", VERDICT, WORKFLOW) != 0


# --- the command


def liftlock(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LIFTLOCK_STATE": str(folder / "state")}
    for name in ("GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITLAB_CI", "BUILDKITE", "CIRCLECI"):
        env.pop(name, None)
    command = [str(ROOT / ".venv" / "bin" / "liftlock"), "modelcar", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_the_command_signs_and_verifies(image: Reference, sigstore: StandIn, tmp_path: Path) -> None:
    token = identity_token()
    (tmp_path / "token").write_text(token + "\n")
    trust = ("--trust-config", sigstore.config)
    signed = liftlock(tmp_path, "sign", image, "--keyless", "--identity-token-file", "token", *trust)
    assert (signed.returncode, WORKFLOW in signed.stdout) == (0, True), signed.stderr
    assert token not in signed.stdout + signed.stderr
    who = ("--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", ISSUER)
    verified = liftlock(tmp_path, "verify", image, *who, *trust)
    assert (verified.returncode, WORKFLOW in verified.stdout) == (0, True), verified.stderr
    assert liftlock(tmp_path, "verify", image, *who, *trust, "--require", "verdict").returncode == 3


def test_bad_input_is_exit_code_2_and_a_dead_service_1(image: Reference, sigstore: StandIn, tmp_path: Path) -> None:
    keyless = ("sign", image, "--keyless", "--trust-config", sigstore.config)
    no_token = liftlock(tmp_path, *keyless)
    assert (no_token.returncode, no_token.stdout, "--identity-token-file" in no_token.stderr) == (2, "", True)
    (tmp_path / "token").write_text(identity_token())
    sigstore.down = True
    assert liftlock(tmp_path, *keyless, "--identity-token-file", "token").returncode == 1


def test_options_that_contradict_are_refused(sigstore: StandIn, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="cannot be read"):
        by_identity(tmp_path / "absent", sigstore.config)
    for identity, issuer, key in (("me", None, None), (None, ISSUER, None), ("me", ISSUER, tmp_path / "models.pub")):
        with pytest.raises(typer.BadParameter, match="--certificate-oidc-issuer"):
            judge_identity(identity, issuer, key, sigstore.config)


def test_a_damaged_bundle_is_refused(sigstore: StandIn) -> None:
    verifier = KeylessVerifier(WANTED, sigstore.config)
    for data in (b"", b"{", b"[]", b"{}", b'{"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}'):
        with pytest.raises(BundleRefused):
            verifier.attested(data)
