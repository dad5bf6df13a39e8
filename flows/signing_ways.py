"""The two ways to sign and to verify an image on the command line: by a key, or by an OIDC identity without one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from serving.modelcar import ImageStore, Reference
    from serving.modelcar.sign import Signed
    from serving.modelcar.verify import Verified

    Predicates = Mapping[str, Mapping[str, Any]]
    # Store, digest, name, predicates; gives who signed, and what.
    Way = Callable[[ImageStore, str, str, Predicates], tuple[str, Signed]]
    Judge = Callable[[Reference, ImageStore, Collection[str], Collection[str] | None], Verified]


def by_key(key: str | None, secret: bytes, local_key: Path, fresh: bool) -> Way:
    from serving.modelcar.keys import ensure_key_pair
    from serving.modelcar.sign import sign
    from serving.modelcar.signer import open_signer

    signer = open_signer(key, secret) if key else ensure_key_pair(local_key)

    def way(store: ImageStore, digest: str, name: str, predicates: Predicates) -> tuple[str, Signed]:
        signed = sign(store, digest, signer, name, predicates=predicates, fresh=fresh)
        return signer.public.fingerprint, signed

    return way


def by_identity(token_file: Path | None, trust_config: Path | None) -> Way:
    from serving.modelcar.keyless import KeylessSigner, ambient_token
    from serving.modelcar.keyless_image import sign_keyless

    signer = KeylessSigner(_token(token_file) if token_file else ambient_token(), trust_config)

    def way(store: ImageStore, digest: str, name: str, predicates: Predicates) -> tuple[str, Signed]:
        who, signed = sign_keyless(store, digest, signer, name, predicates=predicates)
        return str(who), signed

    return way


def judge_key(public_key: Path) -> Judge:
    from serving.modelcar.keys import load_public_key
    from serving.modelcar.verify import verify

    public = load_public_key(public_key)
    return lambda reference, store, required, recorded: verify(
        reference, public, store, required=required, recorded=recorded
    )


def judge_identity(identity: str | None, issuer: str | None, key: Path | None, trust_config: Path | None) -> Judge:
    from serving.modelcar.keyless import Identity, KeylessVerifier
    from serving.modelcar.keyless_image import verify_keyless

    if key or not (identity and issuer):
        raise typer.BadParameter("give --key, or both --certificate-identity and --certificate-oidc-issuer")
    verifier = KeylessVerifier(Identity(identity, issuer), trust_config)
    return lambda reference, store, required, recorded: verify_keyless(
        reference, verifier, store, required=required, recorded=recorded
    )


def _token(file: Path) -> str:
    try:
        return file.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"the token file {file} cannot be read ({error})") from error
