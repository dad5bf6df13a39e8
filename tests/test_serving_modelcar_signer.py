"""Keys that never leave a token or a key service sign images, and everybody's tools verify them."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote

import boto3
import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters

from serving.modelcar import open_store, parse_reference
from serving.modelcar.keys import KeyInvalid, KeyTaken, load_public_key, public_key
from serving.modelcar.referrers import list_referrers
from serving.modelcar.sign import sign
from serving.modelcar.signer import Signer, make_signer, open_signer
from serving.modelcar.verify import RELEASE, verify
from tasks.settings import Settings
from tasks.signing import signing_key, verification_key
from tests.fix_modelcar import build
from tests.fix_signing import IDENTITY, PREDICATES
from tests.fix_tokens import PIN, Token

DATA = b"what is signed"


@pytest.fixture(params=["token", "kms"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bytes, Signer]:
    """The address, the secret and the key, new for each test."""
    name = quote(tmp_path.name)
    if request.param == "token":
        address, secret = request.getfixturevalue("token").address(f"object={name}"), PIN.encode()
    else:
        address, secret = f"awskms://{request.getfixturevalue('kms')}/alias/{name}", b""
    return address, secret, make_signer(address, secret)


def test_openssl_takes_the_signature(made: tuple[str, bytes, Signer], tmp_path: Path) -> None:
    address, secret, key = made
    assert open_signer(address, secret).public == key.public
    for name, data in (("pub", key.public.pem.encode()), ("sig", key.sign(DATA)), ("data", DATA)):
        (tmp_path / name).write_bytes(data)
    command = ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "data"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout == b"Verified OK\n"


def test_an_image_is_signed_again_without_growing(made: tuple[str, bytes, Signer], tmp_path: Path) -> None:
    """Such a key signs the same bytes differently each time; the newer signature takes the older one's place."""
    key = made[2]
    layout, image = build(tmp_path, tag="router-1")
    reference = parse_reference(f"oci:{layout}:router-1@{image.digest}")
    with open_store(reference) as store:
        first = sign(store, image.digest, key, IDENTITY, predicates=PREDICATES)
        listed = len(list_referrers(store, image.digest))
        second = sign(store, image.digest, key, IDENTITY, predicates=PREDICATES)
        assert (first, listed) == (second, len(list_referrers(store, image.digest)))
        assert verify(reference, key.public, store, required=RELEASE).verdict == "PASSED"


def test_a_key_is_made_once(made: tuple[str, bytes, Signer]) -> None:
    address, secret, key = made
    with pytest.raises(KeyTaken, match="never overwritten"):
        make_signer(address, secret)
    assert open_signer(address, secret).public == key.public


def test_a_release_takes_the_key_from_the_settings(made: tuple[str, bytes, Signer], tmp_path: Path) -> None:
    address, secret, key = made
    (tmp_path / "pin").write_bytes(secret + b"\n")
    settings = Settings(state=tmp_path, signing_key=address, signing_passphrase_file=tmp_path / "pin")
    assert signing_key(settings).public == verification_key(settings) == key.public
    assert not (tmp_path / "keys").exists()


def test_many_threads_sign_with_one_key(made: tuple[str, bytes, Signer]) -> None:
    key, right = made[2], []
    threads = [
        threading.Thread(target=lambda: right.append(key.public.verifies(key.sign(DATA), DATA))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8


# --- the token


def open_session(token: Token) -> pkcs11.Session:
    return pkcs11.lib(str(token.module)).get_token(token_label=token.label).open(rw=True, user_pin=PIN)


def test_the_private_half_stays_in_the_token(token: Token) -> None:
    make_signer(token.address("object=stays"), PIN.encode())
    with open_session(token) as session:
        key = next(iter(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
                                             pkcs11.Attribute.LABEL: "stays"})))  # fmt: skip
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]
        assert not key[pkcs11.Attribute.EXTRACTABLE]


@pytest.mark.parametrize(
    ("address", "pin", "said"),
    [
        ("token=liftlock;object=absent", PIN, "0 private keys 'absent'"),
        ("token=another;object=k", PIN, "0 tokens .* there are: liftlock"),
        ("token=liftlock;object=k", "wrong", "PIN does not open"),
        ("token=liftlock;object=k", "", "needs its PIN"),
    ],
)
def test_what_a_token_lacks_is_said(token: Token, address: str, pin: str, said: str) -> None:
    with pytest.raises(KeyInvalid, match=said) as refused:
        open_signer(f"pkcs11:{address}?module-path={token.module}", pin.encode())
    assert PIN not in str(refused.value)
    assert "wrong" not in str(refused.value) or pin != "wrong" or "some wrong PINs" in str(refused.value)


def test_a_module_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.so").write_text("no library")
    for module in (tmp_path / "m.so", tmp_path / "absent.so"):
        with pytest.raises(KeyInvalid, match="cannot be loaded"):
            open_signer(f"pkcs11:token=t;object=k?module-path={module}", b"1")


def make_pair(token: Token, label: str, curve: str, key_id: bytes) -> None:
    with open_session(token) as session:
        named = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, named, local=True)
        parameters.generate_keypair(id=key_id, label=label, store=True)


def test_keys_of_other_kinds_are_refused(token: Token) -> None:
    make_pair(token, "p384", "secp384r1", b"\1")
    with open_session(token) as session:
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, label="rsa", store=True)
    for label in ("p384", "rsa"):
        with pytest.raises(KeyInvalid, match="P-256"):
            open_signer(token.address(f"object={label}"), PIN.encode())


def test_a_name_of_two_keys_is_refused_and_the_id_tells_them_apart(token: Token) -> None:
    for key_id in (b"\x0a", b"\x0b"):
        make_pair(token, "twins", "secp256r1", key_id)
    with pytest.raises(KeyInvalid, match="2 private keys 'twins'"):
        open_signer(token.address("object=twins"), PIN.encode())
    first, second = (open_signer(token.address(f"object=twins;id={one}"), PIN.encode()) for one in ("%0A", "%0B"))
    assert first.public != second.public
    assert first.public.verifies(first.sign(DATA), DATA)


# --- the key service


def test_what_the_service_lacks_is_said(kms: str) -> None:
    with pytest.raises(KeyInvalid, match=r"refused alias/absent: .*NotFound"):
        open_signer(f"awskms://{kms}/alias/absent", b"")
    with pytest.raises(KeyInvalid, match="is no alias"):
        make_signer(f"awskms://{kms}/some-id", b"")
    with pytest.raises(KeyInvalid, match="Could not connect"):
        open_signer("awskms://127.0.0.1:9/alias/x", b"")


def test_a_key_of_the_service_for_another_purpose_is_refused(kms: str) -> None:
    client = boto3.client("kms", endpoint_url=f"http://{kms}")
    made = client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    with pytest.raises(KeyInvalid, match="P-256"):
        open_signer(f"awskms://{kms}/{made}", b"")


# --- the command


def liftlock(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    env = {**os.environ, "LIFTLOCK_STATE": str(folder / "state"), "THE_PIN": PIN}
    command = [str(root / ".venv" / "bin" / "liftlock"), *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert PIN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(params=["token", "kms"])
def address(request: pytest.FixtureRequest) -> str:
    if request.param == "token":
        return str(request.getfixturevalue("token").address("object=cli"))
    return f"awskms://{request.getfixturevalue('kms')}/alias/cli"


def test_the_command_makes_signs_and_verifies(address: str, tmp_path: Path) -> None:
    layout, _ = build(tmp_path, tag="router-1")
    pin = ("--passphrase-env", "THE_PIN") if address.startswith("pkcs11:") else ()
    done = liftlock(tmp_path, "keys", "init", "--key", address, "--prefix", "models", *pin)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "models.key").exists()
    shown = liftlock(tmp_path, "keys", "public", address, *pin)
    assert public_key(shown.stdout, "shown") == load_public_key(tmp_path / "models.pub")
    signed = liftlock(tmp_path, "modelcar", "sign", f"oci:{layout}:router-1", "--key", address, *pin)
    assert signed.returncode == 0, signed.stderr
    reference, public = parse_reference(f"oci:{layout}:router-1"), load_public_key(tmp_path / "models.pub")
    with open_store(reference) as store:
        assert verify(reference, public, store).key == public.fingerprint


def test_a_public_key_is_not_overwritten_and_no_key_is_left_behind(kms: str, tmp_path: Path) -> None:
    (tmp_path / "models.pub").write_text("another's")
    address = f"awskms://{kms}/alias/nobody"
    assert liftlock(tmp_path, "keys", "init", "--key", address, "--prefix", "models").returncode == 2
    with pytest.raises(KeyInvalid, match="NotFound"):
        open_signer(address, b"")
