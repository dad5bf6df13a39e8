"""Keys: cosign's encrypted format both ways, what openssl writes, modes, and what is refused."""

import base64
import json
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from serving.modelcar.keys import (
    KeyInvalid,
    KeyTaken,
    PublicKey,
    ensure_key_pair,
    load_private_key,
    load_public_key,
    new_key,
    public_key,
    write_key_pair,
)
from serving.modelcar.secretbox import BoxInvalid, seal, unseal

PASSPHRASE = "correct horse ü".encode()
# Made by `cosign generate-key-pair` 2.5.0 with the passphrase "pw"; a key of this test alone.
COSIGN_KEY = (Path(__file__).parent / "data" / "cosign_generated.key").read_text()
COSIGN_PUB = (Path(__file__).parent / "data" / "cosign_generated.pub").read_text()


def test_secretbox_opens_the_published_box() -> None:
    """The vector of NaCl's own tests (tests/secretbox.c and box.c), as libsodium carries it too."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4"
        "1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52"
        "f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b"
        "4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
        "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )
    assert unseal(key, nonce, box) == message


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(min_value=0))
def test_a_sealed_box_opens_and_a_changed_one_does_not(key: bytes, message: bytes, place: int) -> None:
    nonce, box = seal(key, message)
    assert unseal(key, nonce, box) == message
    changed = bytearray(box)
    changed[place % len(box)] ^= 1
    with pytest.raises(BoxInvalid):
        unseal(key, nonce, bytes(changed))


def test_a_pair_comes_back_and_only_its_passphrase_opens_it(tmp_path: Path) -> None:
    key = new_key()
    private, public = write_key_pair(key, tmp_path / "new" / "models", PASSPHRASE)
    assert (stat.S_IMODE(private.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    assert load_private_key(private, PASSPHRASE).public == key.public == load_public_key(public)
    assert PASSPHRASE not in private.read_bytes()
    with pytest.raises(KeyInvalid, match="passphrase does not open") as refused:
        load_private_key(private, b"another secret")
    assert "another secret" not in str(refused.value)


def test_the_key_that_cosign_made_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.key").write_text(COSIGN_KEY)
    assert load_private_key(tmp_path / "c.key", b"pw").public == public_key(COSIGN_PUB, "cosign's")


def test_cosign_signs_with_a_key_made_here(tmp_path: Path, cosign: str) -> None:
    private, public = write_key_pair(new_key(), tmp_path / "models", b"pw")
    (tmp_path / "blob").write_bytes(b"bytes")
    environment = {"COSIGN_PASSWORD": "pw", "HOME": str(tmp_path)}
    sign = [cosign, "sign-blob", "--yes", "--tlog-upload=false", "--key", private, "--output-signature", "sig", "blob"]
    subprocess.run(sign, cwd=tmp_path, env=environment, check=True, capture_output=True)
    verify = [cosign, "verify-blob", "--insecure-ignore-tlog=true", "--key", public, "--signature", "sig", "blob"]
    done = subprocess.run(verify, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, "Verified OK" in done.stderr) == (0, True)


@pytest.mark.parametrize("passphrase", [None, b"pw"])
@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_keys_of_openssl_are_read(tmp_path: Path, form: serialization.PrivateFormat, passphrase: bytes | None) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    (tmp_path / "o.key").write_bytes(made.private_bytes(serialization.Encoding.PEM, form, protection))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    expected = made.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()
    assert load_private_key(tmp_path / "o.key", passphrase or b"").public.pem == expected


def test_a_signature_is_the_same_every_time_and_openssl_agrees(tmp_path: Path) -> None:
    key = new_key()
    signature = key.sign(b"data")
    assert key.sign(b"data") == signature
    for name, data in (("pub", key.public.pem.encode()), ("sig", signature), ("data", b"data")):
        (tmp_path / name).write_bytes(data)
    command = ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "data"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout == b"Verified OK\n"
    assert not key.public.verifies(signature, b"dat")
    assert not key.public.verifies(signature[:-1], b"data")
    assert not new_key().public.verifies(signature, b"data")


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    private, public = write_key_pair(new_key(), tmp_path / "models", b"")
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(KeyTaken):
        write_key_pair(new_key(), tmp_path / "models", b"")
    private.unlink()
    with pytest.raises(KeyTaken):
        write_key_pair(new_key(), tmp_path / "models", b"")
    assert public.read_bytes() == before[1]
    assert not private.exists()


def test_the_local_key_is_made_once_by_many(tmp_path: Path) -> None:
    found: list[PublicKey] = []

    def ask() -> None:
        found.append(ensure_key_pair(tmp_path / "keys" / "liftlock").public)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(found) == {load_public_key(tmp_path / "keys" / "liftlock.pub")}
    assert stat.S_IMODE((tmp_path / "keys" / "liftlock.key").stat().st_mode) == 0o600


def test_a_killed_first_use_is_mended(tmp_path: Path) -> None:
    (tmp_path / "liftlock.pub").write_text(new_key().public.pem)  # the private key was never written
    key = ensure_key_pair(tmp_path / "liftlock")
    assert load_public_key(tmp_path / "liftlock.pub") == key.public


@pytest.mark.parametrize("kind", ["p384", "rsa", "ed25519"])
def test_other_kinds_of_keys_are_refused(tmp_path: Path, kind: str) -> None:
    made = {
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "k").write_bytes(made.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "p").write_bytes(made.public_key().public_bytes(pem, spki))
    with pytest.raises(KeyInvalid, match="P-256"):
        load_private_key(tmp_path / "k", b"")
    with pytest.raises(KeyInvalid, match="P-256"):
        load_public_key(tmp_path / "p")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    private, _ = write_key_pair(new_key(), tmp_path / "models", b"")
    with pytest.raises(KeyInvalid, match=r"name the \.pub file"):
        load_public_key(private)


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n", "\0" * 99999])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(KeyInvalid):
        load_private_key(tmp_path / "k", b"")
    with pytest.raises(KeyInvalid):
        load_public_key(tmp_path / "k")
    with pytest.raises(KeyInvalid):
        load_private_key(tmp_path / "absent", b"")


def test_a_key_file_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    lines = COSIGN_KEY.splitlines()
    document = json.loads(base64.b64decode("".join(lines[1:-1])))
    document["kdf"]["params"]["N"] = 1 << 30
    body = base64.b64encode(json.dumps(document).encode()).decode()
    (tmp_path / "k").write_text("\n".join([lines[0], body, lines[-1]]))
    with pytest.raises(KeyInvalid, match="which cosign does not write"):
        load_private_key(tmp_path / "k", b"pw")
