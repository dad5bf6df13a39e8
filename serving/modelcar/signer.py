"""What signs: a key file, a key in a PKCS#11 token, or a key of AWS KMS, by one name on the command line and in settings.

`pkcs11:…` (RFC 7512) and `awskms://…` (cosign's form) are addresses of keys; anything else is a path.
"""

from pathlib import Path
from typing import Protocol

from serving.modelcar.keys import KeyInvalid, PublicKey, load_private_key
from serving.modelcar.kms_key import SCHEME as KMS_SCHEME
from serving.modelcar.kms_key import KmsKey, make_kms_key
from serving.modelcar.token_key import SCHEME as TOKEN_SCHEME
from serving.modelcar.token_key import TokenKey, make_token_key


class Signer(Protocol):
    """ECDSA P-256 with SHA-256. A key file signs the same bytes the same way every time; tokens and services do not."""

    @property
    def public(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes:
        """The DER signature."""
        ...


def is_address(name: str) -> bool:
    """Whether the key is somewhere else than in a file."""
    return name.startswith((TOKEN_SCHEME, KMS_SCHEME))


def open_signer(name: str, secret: bytes) -> Signer:
    """The private key of that name. `secret` is a file's passphrase or a token's PIN. Raises KeyInvalid."""
    if name.startswith(TOKEN_SCHEME):
        return TokenKey(name, secret)
    if name.startswith(KMS_SCHEME):
        return KmsKey(name)
    return load_private_key(Path(name).expanduser(), secret)


def make_signer(address: str, secret: bytes) -> Signer:
    """A new key pair at that address, whose private half never leaves it. Raises KeyInvalid, KeyTaken."""
    if address.startswith(TOKEN_SCHEME):
        return make_token_key(address, secret)
    if address.startswith(KMS_SCHEME):
        return make_kms_key(address)
    raise KeyInvalid(f"{address!r} is no address of a key; use pkcs11:… or awskms://…, or --prefix for a file")
