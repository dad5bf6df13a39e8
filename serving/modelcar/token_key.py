"""Signing keys in a PKCS#11 token: a hardware module, a smart card, SoftHSM, or a cloud's module for its key service.

The private half never leaves the token. It is reached through the library python-pkcs11 (extra `hsm`) and the module that
the address names. The digest is made here and signed there (CKM_ECDSA), which every token offers. A token signs with
random nonces, so signing again gives other bytes.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from serving.modelcar.key_uri import TokenAddress, token_address
from serving.modelcar.keys import KeyInvalid, KeyTaken, PublicKey, public_key_of_der

if TYPE_CHECKING:
    import pkcs11

SCHEME = "pkcs11:"
_CURVE = "secp256r1"
_ONE_SESSION = threading.Lock()  # a login is the whole process's: closing one session logs the others out


class TokenKey:
    """The key that a PKCS#11 address names. Each signature opens and closes a session of its own."""

    def __init__(self, address: str, pin: bytes) -> None:
        """Looks for the key and its public half. Raises KeyInvalid."""
        self._address = token_address(address)
        self._pin = pin
        with _session(self._address, pin) as session:
            _private(session, self._address)
            self._public = _public_of(session, self._address)

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Raises KeyInvalid, also where the token's signature is not by the public key that it shows."""
        import pkcs11

        with _session(self._address, self._pin) as session:
            raw = _private(session, self._address).sign(hashlib.sha256(data).digest(), mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        signature = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
        if not self._public.verifies(signature, data):
            raise KeyInvalid(
                f"{_named(self._address)} signs with another key than the public one of its name; name it by id too"
            )
        return signature


def make_token_key(address: str, pin: bytes) -> TokenKey:
    """A P-256 pair that is made in the token and cannot be taken out of it. Raises KeyInvalid, KeyTaken."""
    import_library()
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    where = token_address(address)
    with _session(where, pin, write=True) as session:
        if any(True for _ in session.get_objects(_wanted(where))):
            raise KeyTaken(
                f"the token holds {_named(where)} already and keys are never overwritten; choose another name"
            )
        curve = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVE)},
            local=True,
        )
        hidden = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
        curve.generate_keypair(
            id=where.key_id or secrets.token_bytes(8),
            label=where.label,
            store=True,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            private_template=hidden,
        )
    return TokenKey(address, pin)


def import_library() -> None:
    """Raises KeyInvalid where python-pkcs11 is not installed."""
    try:
        import pkcs11  # noqa: F401
    except ImportError as error:
        raise KeyInvalid(
            f"keys in tokens need the library python-pkcs11 ({error}); run pip install python-pkcs11"
        ) from error


@contextmanager
def _session(where: TokenAddress, pin: bytes, *, write: bool = False) -> Iterator[pkcs11.Session]:
    """Every error of the token comes out as KeyInvalid, without the PIN."""
    import_library()
    import pkcs11

    if not pin:
        raise KeyInvalid(f"the token of {_named(where)} needs its PIN; give --passphrase-file or --passphrase-env")
    try:
        module = pkcs11.lib(where.module)
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise KeyInvalid(
            f"the PKCS#11 module {where.module} cannot be loaded ({_said(error)}); name the token's library in module-path"
        ) from error
    try:
        with _ONE_SESSION, _token(module, where).open(rw=write, user_pin=_text(pin)) as session:
            yield session
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid) as error:
        raise KeyInvalid(
            f"the PIN does not open the token of {_named(where)}; give it by --passphrase-file or --passphrase-env "
            "(tokens lock themselves after some wrong PINs)"
        ) from error
    except pkcs11.PKCS11Error as error:
        raise KeyInvalid(f"the token of {_named(where)} refused: {_said(error)}; see its module's log") from error


def _token(module: Any, where: TokenAddress) -> pkcs11.Token:
    names = {"token_label": where.token, "token_serial": where.serial}
    asked = {name: value for name, value in names.items() if value is not None}
    found = [token for token in module.get_tokens(**asked) if where.slot in (None, token.slot.slot_id)]
    if len(found) != 1:
        labels = sorted({token.label for token in module.get_tokens() if token.label})
        raise KeyInvalid(
            f"{len(found)} tokens answer to the address of {_named(where)}; there are: {', '.join(labels) or 'none'}; "
            "name one by token=, serial= or slot-id="
        )
    return found[0]  # type: ignore[no-any-return]


def _wanted(where: TokenAddress) -> dict[Any, Any]:
    import pkcs11

    names = {pkcs11.Attribute.LABEL: where.label, pkcs11.Attribute.ID: where.key_id}
    return {name: value for name, value in names.items() if value is not None}


def _only(session: pkcs11.Session, where: TokenAddress, kind: Any) -> Any:
    import pkcs11

    found = list(session.get_objects({pkcs11.Attribute.CLASS: kind, **_wanted(where)}))
    if len(found) != 1:
        what = "private" if kind == pkcs11.ObjectClass.PRIVATE_KEY else "public"
        raise KeyInvalid(
            f"the token holds {len(found)} {what} keys {_named(where)}, and one is needed; "
            "make one with `liftlock keys init --key`, or name one by object= and id="
        )
    return found[0]


def _private(session: pkcs11.Session, where: TokenAddress) -> Any:
    import pkcs11

    return _only(session, where, pkcs11.ObjectClass.PRIVATE_KEY)


def _public_of(session: pkcs11.Session, where: TokenAddress) -> PublicKey:
    import pkcs11
    from pkcs11.util.ec import encode_ec_public_key

    key = _only(session, where, pkcs11.ObjectClass.PUBLIC_KEY)
    if key.key_type != pkcs11.KeyType.EC:
        raise KeyInvalid(f"{_named(where)} is a {key.key_type.name} key; ECDSA P-256 is the one kind used here")
    return public_key_of_der(encode_ec_public_key(key), _named(where))


def _named(where: TokenAddress) -> str:
    key_id = f"id {where.key_id.hex()}" if where.key_id is not None else ""
    return " ".join(filter(None, (where.label and repr(where.label), key_id)))


def _text(pin: bytes) -> str:
    return pin.decode("utf-8", "surrogateescape")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
