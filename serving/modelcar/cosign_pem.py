"""cosign's own file format of a private key: PKCS#8 in a NaCl secretbox under scrypt, as PEM. Pure.

Source: go-securesystemslib, encrypted/encrypted.go, which `cosign generate-key-pair` calls.
"""

import base64
import binascii
import hashlib
import json
import secrets

from serving.modelcar import secretbox

_BEGIN = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"
_END = "-----END ENCRYPTED SIGSTORE PRIVATE KEY-----"
_OLD_BEGIN = "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"
_SCRYPT = {"N": 1 << 16, "r": 8, "p": 1}  # what `cosign generate-key-pair` writes
_SCRYPT_LIMITS = {"N": 1 << 17, "r": 8, "p": 1}  # a key file must not make the reader spend gigabytes
_SCRYPT_MEMORY = 256 << 20
_SALT_BYTES = 32


class PemInvalid(ValueError):
    """The text is damaged, or the passphrase does not open it. The message goes on from the file's name."""


def is_sealed(data: bytes) -> bool:
    return _BEGIN.encode() in data or _OLD_BEGIN.encode() in data


def seal(der: bytes, passphrase: bytes) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    nonce, box = secretbox.seal(_stretched(passphrase, salt, _SCRYPT), der)
    document = {
        "kdf": {"name": "scrypt", "params": _SCRYPT, "salt": _encoded(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _encoded(nonce)},
        "ciphertext": _encoded(box),
    }
    body = base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def unseal(data: bytes, passphrase: bytes) -> bytes:
    """The PKCS#8 DER. Raises PemInvalid."""
    try:
        lines = [line for line in data.decode("ascii").splitlines() if line and not line.startswith("-----")]
        document = json.loads(base64.b64decode("".join(lines), validate=True))
        params = {name: int(document["kdf"]["params"][name]) for name in _SCRYPT}
        salt, nonce = _decoded(document["kdf"]["salt"]), _decoded(document["cipher"]["nonce"])
        box = _decoded(document["ciphertext"])
        names = (document["kdf"]["name"], document["cipher"]["name"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PemInvalid(f"is a damaged cosign key ({type(error).__name__}); restore it from a copy") from error
    if names != ("scrypt", "nacl/secretbox") or any(not 0 < params[name] <= _SCRYPT_LIMITS[name] for name in params):
        raise PemInvalid(f"is encrypted with {names} {params}, which cosign does not write; make another key")
    try:
        return secretbox.unseal(_stretched(passphrase, salt, params), nonce, box)
    except (secretbox.BoxInvalid, ValueError) as error:
        raise PemInvalid("stays shut: the passphrase does not open it; give the one that it was made with") from error


def _stretched(passphrase: bytes, salt: bytes, params: dict[str, int]) -> bytes:
    return hashlib.scrypt(
        passphrase,
        salt=salt,
        n=params["N"],
        r=params["r"],
        p=params["p"],
        maxmem=_SCRYPT_MEMORY,
        dklen=secretbox.KEY_BYTES,
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{len(text)} characters are not base64") from error
