"""Addresses of keys, read into values: PKCS#11 URIs (RFC 7512) and cosign's `awskms://`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from serving.modelcar.keys import KeyInvalid

_TOKEN_FORM = "pkcs11:token=TOKEN;object=KEY?module-path=/path/of/module.so"  # noqa: S105
_KMS_FORM = "awskms:///alias/NAME, awskms:///KEY-ID, or awskms://HOST:PORT/… for another endpoint"
_PATH_NAMES = frozenset({"token", "object", "id", "serial", "slot-id", "type"})
_QUERY_NAMES = frozenset({"module-path"})
_SECRET_NAMES = frozenset({"pin-value", "pin-source"})
_KEY_ID = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}|arn:aws[a-z-]*:kms:\S+|[A-Za-z0-9-]{1,64}")
_ALIAS = "alias/"


@dataclass(frozen=True)
class TokenAddress:
    """One key of one token. Names that the address leaves out are None: they match any."""

    module: str
    token: str | None = None
    serial: bytes | None = None
    slot: int | None = None
    label: str | None = None
    key_id: bytes | None = None


@dataclass(frozen=True)
class KmsAddress:
    """`endpoint` is None for AWS's own; `key` is an id, an ARN or `alias/NAME`."""

    endpoint: str | None
    key: str

    @property
    def is_alias(self) -> bool:
        return self.key.startswith(_ALIAS)


def token_address(uri: str) -> TokenAddress:
    """Raises KeyInvalid."""
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    found = {**_pairs(path, ";", _PATH_NAMES), **_pairs(query, "&", _QUERY_NAMES)}
    if unquote(found.get("type", "private")) not in ("private", "public"):
        raise KeyInvalid(f"the PKCS#11 address has type={found['type']}; leave it out or write type=private")
    if "module-path" not in found:
        raise KeyInvalid(f"the PKCS#11 address names no module-path, the token's library; write {_TOKEN_FORM}")
    if not {"token", "serial", "slot-id"} & found.keys() or not {"object", "id"} & found.keys():
        raise KeyInvalid(f"the PKCS#11 address has to name a token and a key in it; write {_TOKEN_FORM}")
    slot = found.get("slot-id", "0")
    if not slot.isdecimal():
        raise KeyInvalid(f"the PKCS#11 address has slot-id={slot}, which is no number; leave it out and name the token")
    return TokenAddress(
        unquote(found["module-path"]),
        _text(found, "token"),
        _bytes(found, "serial"),
        int(slot) if "slot-id" in found else None,
        _text(found, "object"),
        _bytes(found, "id"),
    )


def kms_address(uri: str) -> KmsAddress:
    """Raises KeyInvalid."""
    prefix, _, rest = uri.partition("://")
    host, slash, key = rest.partition("/")
    if prefix != "awskms" or not slash or not _KEY_ID.fullmatch(key):
        raise KeyInvalid(f"{uri!r} names no key of AWS KMS; write {_KMS_FORM}")
    if not host:
        return KmsAddress(None, key)
    loopback = host.partition(":")[0] in ("localhost", "127.0.0.1")
    return KmsAddress(f"{'http' if loopback else 'https'}://{host}", key)


def _pairs(text: str, separator: str, known: frozenset[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, text.split(separator)):
        name, equals, value = pair.partition("=")
        if (
            name in _SECRET_NAMES
        ):  # a command line is read by every process of the machine; nothing of the value is said
            raise KeyInvalid(
                f"the PKCS#11 address has {name}; command lines are public, so give the PIN by --passphrase-file or --passphrase-env"
            )
        if name not in known or not equals:
            raise KeyInvalid(f"the PKCS#11 address has {name!r}, which is not known here; write {_TOKEN_FORM}")
        if name in found:
            raise KeyInvalid(f"the PKCS#11 address has {name} twice; write it once")
        found[name] = value
    return found


def _text(found: Mapping[str, str], name: str) -> str | None:
    try:
        return unquote(found[name], errors="strict") if name in found else None
    except UnicodeDecodeError as error:
        raise KeyInvalid(f"the PKCS#11 address has a {name} that is not UTF-8; write it percent-encoded") from error


def _bytes(found: Mapping[str, str], name: str) -> bytes | None:
    return unquote_to_bytes(found[name]) if name in found else None
