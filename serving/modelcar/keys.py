"""ECDSA P-256 key pairs for signing images: `NAME.key` in cosign's encrypted format and `NAME.pub` as plain PEM.

`cosign sign --key NAME.key` takes the private key, and Liftlock takes the one that `cosign generate-key-pair` made, or
a PKCS#8 or SEC 1 PEM that openssl made. Keys that are in no file are in token_key.py and kms_key.py.
No function here prints, logs or puts into an error what the passphrase is.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serving.modelcar import cosign_pem
from serving.modelcar.blobs import locked

# RFC 6979: the same key and bytes give the same signature, so signing again changes nothing in a registry.
_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
MAX_KEY_BYTES = 64 << 10
_LOCK = ".liftlock-keys.lock"


class KeyInvalid(ValueError):
    """The file is no key that can be used here, or the passphrase does not open it."""


class KeyTaken(FileExistsError):
    """A key file of that name exists. Keys are never overwritten."""


@dataclass(frozen=True)
class PublicKey:
    """A P-256 public key; `pem` is its SubjectPublicKeyInfo."""

    pem: str

    @property
    def hint(self) -> str:
        """How a Sigstore bundle names a static key: base64 of the sha256 of the DER key."""
        return base64.b64encode(hashlib.sha256(_der(self.pem)).digest()).decode()

    @property
    def pem_hint(self) -> str:
        """How model_signing names a static key: the sha256 of the PEM text, in hexadecimal."""
        return hashlib.sha256(self.pem.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 of the DER key, as `openssl pkey -pubin -outform der | sha256sum` prints it."""
        return hashlib.sha256(_der(self.pem)).hexdigest()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        try:
            _parsed(self.pem, "the key").verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """Signs with ECDSA and SHA-256; its repr shows nothing of the key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public = PublicKey(pem.decode())

    def sign(self, data: bytes) -> bytes:
        """The DER signature; the same for the same bytes."""
        return self._key.sign(data, _ECDSA)

    def sealed(self, passphrase: bytes) -> str:
        """The key as cosign's PEM, encrypted under the passphrase."""
        plain = serialization.NoEncryption()
        der = self._key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)
        return cosign_pem.seal(der, passphrase)


def new_key() -> PrivateKey:
    return PrivateKey(ec.generate_private_key(ec.SECP256R1()))


def write_key_pair(key: PrivateKey, prefix: Path, passphrase: bytes) -> tuple[Path, Path]:
    """Writes `prefix.key` (mode 0600) and `prefix.pub`; returns both paths. Raises KeyTaken, and then writes nothing."""
    private = prefix.with_name(f"{prefix.name}.key")
    refuse_taken(private)
    public = write_public_key(key.public, prefix)
    _write_new(private, key.sealed(passphrase), 0o600)  # last: whoever finds it finds its public key too
    return private, public


def ensure_key_pair(prefix: Path) -> PrivateKey:
    """The local default key: read, or made with an empty passphrase where there is none; file mode alone protects it.

    Raises KeyInvalid.
    """
    private = prefix.with_name(f"{prefix.name}.key")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with locked(prefix.parent / _LOCK):
        if not private.exists():
            prefix.with_name(f"{prefix.name}.pub").unlink(missing_ok=True)  # of a run killed before the other file
            write_key_pair(new_key(), prefix, b"")
    return load_private_key(private, b"")


def load_private_key(path: Path, passphrase: bytes) -> PrivateKey:
    """cosign's encrypted PEM, or PEM as openssl writes it. Raises KeyInvalid."""
    data = _read(path)
    if cosign_pem.is_sealed(data):
        try:
            der = cosign_pem.unseal(data, passphrase)
        except cosign_pem.PemInvalid as error:
            raise KeyInvalid(f"{path} {error}") from error
        return PrivateKey(_p256(path, lambda: serialization.load_der_private_key(der, None)))
    if b"ENCRYPTED" in data:
        return PrivateKey(_p256(path, lambda: serialization.load_pem_private_key(data, passphrase)))
    return PrivateKey(_p256(path, lambda: serialization.load_pem_private_key(data, None)))


def load_public_key(path: Path) -> PublicKey:
    """A public key as PEM. Raises KeyInvalid."""
    return public_key(_read(path).decode("utf-8", "replace"), str(path))


def public_key(pem: str, name: str) -> PublicKey:
    """The key in the PEM text; `name` is what an error calls it. Raises KeyInvalid."""
    text = _parsed(pem, name).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(text.decode())


def public_key_of_der(der: bytes, name: str) -> PublicKey:
    """The key in a SubjectPublicKeyInfo. Raises KeyInvalid."""
    return public_key(f"-----BEGIN PUBLIC KEY-----\n{base64.encodebytes(der).decode()}-----END PUBLIC KEY-----\n", name)


def write_public_key(key: PublicKey, prefix: Path) -> Path:
    """Writes `prefix.pub`. Raises KeyTaken, and then writes nothing."""
    path = prefix.with_name(f"{prefix.name}.pub")
    refuse_taken(path)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    _write_new(path, key.pem, 0o644)
    return path


def refuse_taken(path: Path) -> None:
    """Raises KeyTaken where something has that name."""
    if os.path.lexists(path):
        raise KeyTaken(f"{path} exists and keys are never overwritten; move it away or choose another --prefix")


def _parsed(pem: str, name: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = (
            "it is a private key; name the .pub file" if "PRIVATE KEY" in pem else "name a file that `keys init` made"
        )
        raise KeyInvalid(f"{name} holds no public key in PEM form; {hint}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyInvalid(f"{name} holds no ECDSA P-256 key, the one kind used here; make one with `liftlock keys init`")
    return key


def _p256(path: Path, load: Callable[[], object]) -> ec.EllipticCurvePrivateKey:
    try:
        key = load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyInvalid(f"{path} is no private key, or the passphrase is not its; check both") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyInvalid(f"{path} holds no ECDSA P-256 key, the one kind used here; make one with `liftlock keys init`")
    return key


def _der(pem: str) -> bytes:
    return _parsed(pem, "the key").public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_KEY_BYTES:
            raise KeyInvalid(f"{path} has {path.stat().st_size} bytes, more than a key has; name the key file")
        return path.read_bytes()
    except OSError as error:
        raise KeyInvalid(f"the key {path} cannot be read ({error.strerror}); name a file that exists") from error


def _write_new(path: Path, text: str, mode: int) -> None:
    """Complete or absent, and never over another file: a hard link fails where the name is taken."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        partial.chmod(mode)
        os.link(partial, path)
    finally:
        partial.unlink()
