"""Programs of others take what is signed here, and we take what they sign: cosign, model_signing, a CycloneDX validator."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.modelcar import copy_image, open_store, parse_reference
from serving.modelcar.attest import PROVENANCE, VERDICT
from serving.modelcar.keys import PrivateKey, load_private_key, load_public_key, new_key, write_key_pair
from serving.modelcar.pull import pull
from serving.modelcar.referrers import list_referrers, read_attachment
from serving.modelcar.sbom import SBOM
from serving.modelcar.sign import sign
from serving.modelcar.signature import tag_of
from serving.modelcar.signed import CONTENT_TYPE, SIGN, AttestationMissing
from serving.modelcar.verify import RELEASE, verify
from tests.fix_modelcar import build
from tests.fix_signing import PEERS, PREDICATES

PASSPHRASE = "open sesame"
EMPTY_ROOT = {
    "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "tlogs": [], "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
}  # fmt: skip
Cosign = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Pushed:
    """An image in the registry, and a key pair `models.key` and `models.pub` in the test's folder."""

    reference: str
    digest: str
    key: PrivateKey


@pytest.fixture
def pushed(tmp_path: Path, registry: str, repository: str) -> Pushed:
    layout, image = build(tmp_path)
    place = parse_reference(f"{registry.removeprefix('http://')}/{repository}:v1")
    with open_store(parse_reference(f"oci:{layout}")) as source, open_store(place) as store:
        copy_image(source, image.digest, store, "v1")
    key = new_key()
    write_key_pair(key, tmp_path / "models", PASSPHRASE.encode())
    return Pushed(place.pinned(image.digest), image.digest, key)


@pytest.fixture
def run_cosign(tmp_path: Path, cosign: str) -> Cosign:
    """Never over the network: no transparency log, and a trusted root that trusts nobody."""
    (tmp_path / "root.json").write_text(json.dumps(EMPTY_ROOT))

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        flags = ["--yes", "--tlog-upload=false"] if command in ("sign", "attest") else ["--insecure-ignore-tlog=true"]
        environment = {**os.environ, "COSIGN_PASSWORD": PASSPHRASE, "HOME": str(tmp_path)}
        return subprocess.run(
            [cosign, command, *flags, "--allow-http-registry", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def sign_here(pushed: Pushed, key: PrivateKey | None = None) -> None:
    with open_store(parse_reference(pushed.reference)) as store:
        sign(store, pushed.digest, key or pushed.key, store.name, predicates=PREDICATES)


def test_cosign_verifies_the_signature(pushed: Pushed, run_cosign: Cosign) -> None:
    assert "no signatures found" in run_cosign("verify", "--key", "models.pub", pushed.reference).stderr
    sign_here(pushed, new_key())
    assert run_cosign("verify", "--key", "models.pub", pushed.reference).returncode != 0
    sign_here(pushed)
    done = run_cosign("verify", "--key", "models.pub", pushed.reference)
    assert done.returncode == 0, done.stderr
    (claim,) = json.loads(done.stdout)
    assert claim["critical"]["image"]["docker-manifest-digest"] == pushed.digest
    assert claim["critical"]["identity"]["docker-reference"] == pushed.reference.partition("@")[0]


@pytest.mark.parametrize("kind", [PROVENANCE, VERDICT, SBOM])
@pytest.mark.parametrize("bundles", [False, True])
def test_cosign_verifies_the_attestations(pushed: Pushed, run_cosign: Cosign, kind: str, bundles: bool) -> None:
    new_format = ["--new-bundle-format", "--trusted-root", "root.json"] if bundles else []
    arguments = ("--key", "models.pub", *new_format, "--type", kind, pushed.reference)
    assert run_cosign("verify-attestation", *arguments).returncode != 0
    sign_here(pushed)
    done = run_cosign("verify-attestation", *arguments)
    assert done.returncode == 0, done.stderr


def test_cosign_verifies_the_signature_as_a_bundle(pushed: Pushed, run_cosign: Cosign) -> None:
    sign_here(pushed)
    new_format = ["--new-bundle-format", "--trusted-root", "root.json", "--type", SIGN]
    done = run_cosign("verify-attestation", "--key", "models.pub", *new_format, pushed.reference)
    assert done.returncode == 0, done.stderr


def test_cosign_refuses_a_signature_moved_from_another_image(pushed: Pushed, run_cosign: Cosign) -> None:
    sign_here(pushed)
    with open_store(parse_reference(pushed.reference)) as store:
        other = json.dumps(store.get_manifest(pushed.digest).json() | {"annotations": {"other": "image"}}).encode()
        digest = store.put_manifest(other, "other")
        store.put_manifest(store.get_manifest(tag_of(pushed.digest, ".sig")).data, tag_of(digest, ".sig"))
    moved = f"{pushed.reference.partition('@')[0]}@{digest}"
    assert run_cosign("verify", "--key", "models.pub", moved).returncode != 0


def test_what_cosign_signs_is_verified_here(pushed: Pushed, run_cosign: Cosign, tmp_path: Path) -> None:
    done = run_cosign("sign", "--key", "models.key", pushed.reference)
    assert done.returncode == 0, done.stderr
    reference, public = parse_reference(pushed.reference), load_public_key(tmp_path / "models.pub")
    with open_store(reference) as store:
        assert verify(reference, public, store, required=()).statements == ()
        with pytest.raises(AttestationMissing):
            verify(reference, public, store)
        sign(store, pushed.digest, load_private_key(tmp_path / "models.key", PASSPHRASE.encode()), store.name)
        assert verify(reference, public, store).identity == store.name


def test_cosign_may_sign_after_us(pushed: Pushed, run_cosign: Cosign) -> None:
    sign_here(pushed)
    assert run_cosign("sign", "--key", "models.key", pushed.reference).returncode == 0
    reference = parse_reference(pushed.reference)
    with open_store(reference) as store:
        assert verify(reference, pushed.key.public, store, required=RELEASE).verdict == "PASSED"


def test_model_signing_verifies_the_pulled_folder(pushed: Pushed, tmp_path: Path, model_signing: str) -> None:
    sign_here(pushed)
    with open_store(parse_reference(pushed.reference)) as store:
        pull(store, pushed.digest, tmp_path / "pulled")
        (entry,) = [one for one in list_referrers(store, pushed.digest) if one["artifactType"] == CONTENT_TYPE]
        (tmp_path / "model.sig").write_bytes(read_attachment(store, pushed.digest, entry).data)
    command = [model_signing, "verify", "key", "pulled", "--public_key", "models.pub", "--signature", "model.sig"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Verification succeeded" in done.stdout + done.stderr) == (0, True)
    (tmp_path / "pulled" / "config.json").write_text("{}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "config.json" in done.stdout + done.stderr


def test_the_bill_of_materials_is_valid_cyclonedx(pushed: Pushed, model_signing: str) -> None:
    """Strictly, against the schema inside cyclonedx-python-lib, which is installed beside model_signing."""
    sign_here(pushed)
    with open_store(parse_reference(pushed.reference)) as store:
        layers = store.get_manifest(tag_of(pushed.digest, ".att")).json()["layers"]
        (digest,) = [layer["digest"] for layer in layers if layer["annotations"]["predicateType"] == SBOM]
        envelope = store.get_blob(digest, 1 << 20).decode()
    check = (
        "import base64, json, sys\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "statement = json.loads(base64.b64decode(json.load(sys.stdin)['payload']))\n"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(statement['predicate'])))\n"
    )
    done = subprocess.run([PEERS / "python", "-c", check], input=envelope, capture_output=True, text=True, check=False)
    assert done.stdout == "None\n", done.stderr
