"""Keyless signing: an OIDC identity instead of a key. Bundles are made and judged by the library sigstore (extra `keyless`).

An authority (Fulcio) gives a certificate of ten minutes to who shows an identity token, and a transparency log (Rekor) keeps
when it was used. Who verifies trusts that authority and that log, and names the identity that it wants. What is signed is
the same in-toto statements that a key signs (envelope.py). Where the services are, and their keys, is Sigstore's public
instance, asked for over the network, or a client trust config in a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.modelcar.envelope import PAYLOAD_TYPE, EnvelopeInvalid, Statement, parse_statement
from serving.modelcar.keys import KeyInvalid

if TYPE_CHECKING:
    from sigstore.models import Bundle, ClientTrustConfig
    from sigstore.sign import Signer


class SigstoreFailed(RuntimeError):
    """The certificate authority, the transparency log or their list of keys did not answer as it should."""


class BundleRefused(ValueError):
    """A bundle is damaged, or its signature, certificate or log entry is not what it has to be."""


_ISSUER = "1.3.6.1.4.1.57264.1.1"  # Fulcio's extension with the issuer as plain text


@dataclass(frozen=True)
class Identity:
    """As the certificate names it: an e-mail address or a workflow's URL, and who vouches for it."""

    subject: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


@dataclass(frozen=True)
class Attested:
    """A statement that the identity signed, and when by the log (Unix time, 0 where it does not say)."""

    statement: Statement
    signed_at: int


class KeylessSigner:
    """Signs with one certificate, as long as that is valid: about ten minutes."""

    def __init__(self, token: str, trust_config: Path | None) -> None:
        """Asks for the certificate. Raises KeyInvalid for a token that cannot be used, SigstoreFailed."""
        _check_library()
        from sigstore.oidc import ExpiredIdentity, IdentityError, IdentityToken
        from sigstore.sign import SigningContext

        try:
            claims = IdentityToken(token)
            with _services():
                context = SigningContext.from_trust_config(_trust(trust_config))
                with context.signer(claims) as signer:
                    self._signer: Signer = signer
        except (IdentityError, ExpiredIdentity) as error:
            raise KeyInvalid(
                f"the identity token cannot be used ({error}); get a new one for the audience sigstore"
            ) from error
        self.trust_config = trust_config

    def bundle(self, claim: Statement) -> bytes:
        """The Sigstore bundle over the statement, entered in the log. Raises SigstoreFailed."""
        from sigstore.dsse import Statement as Signable

        with _services():
            return self._signer.sign_dsse(Signable(claim.data)).to_json().encode()


class KeylessVerifier:
    """Judges bundles by an identity that is wanted."""

    def __init__(self, identity: Identity, trust_config: Path | None) -> None:
        """Raises KeyInvalid, SigstoreFailed."""
        _check_library()
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity as Wanted

        self.identity = identity
        with _services():
            self._verifier = Verifier(trusted_root=_trust(trust_config).trusted_root)
        self._policy = Wanted(identity=identity.subject, issuer=identity.issuer)

    def attested(self, data: bytes) -> Attested | None:
        """What the bundle says; None where it is a key's or another identity's. Raises BundleRefused."""
        from sigstore.errors import Error

        bundle = self._own(data)
        if bundle is None:
            return None
        try:
            kind, payload = self._verifier.verify_dsse(bundle, self._policy)
            if kind != PAYLOAD_TYPE:
                raise BundleRefused(f"it is signed and holds a {kind}, not an in-toto statement")
            return Attested(parse_statement(payload), bundle.log_entry._inner.integrated_time or 0)
        except (Error, EnvelopeInvalid, ValueError) as error:
            raise BundleRefused(str(error) or type(error).__name__) from error

    def _own(self, data: bytes) -> Bundle | None:
        """The bundle, where its certificate says that it is the wanted identity's. It is not judged yet."""
        from sigstore.errors import Error, VerificationError
        from sigstore.models import Bundle

        if not _has_certificate(data):
            return None
        try:
            bundle = Bundle.from_json(data)
        except (Error, ValueError) as error:
            raise BundleRefused(f"it is no Sigstore bundle: {error}") from error
        try:
            self._policy.verify(bundle.signing_certificate)
        except (VerificationError, ValueError, LookupError):
            return None
        return bundle


def signer_of(data: bytes) -> Identity:
    """The identity in a bundle's certificate, which is what a verifier asks for; a token names it otherwise.

    Nothing is verified. Raises BundleRefused.
    """
    from cryptography import x509
    from sigstore.errors import Error
    from sigstore.models import Bundle

    try:
        extensions = Bundle.from_json(data).signing_certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = extensions.get_extension_for_oid(x509.ObjectIdentifier(_ISSUER)).value
        (subject,) = (
            *names.get_values_for_type(x509.RFC822Name),
            *names.get_values_for_type(x509.UniformResourceIdentifier),
        )
    except (Error, ValueError, x509.ExtensionNotFound) as error:
        raise BundleRefused(f"its certificate names no one identity: {error}") from error
    return Identity(subject, issuer.value.decode() if isinstance(issuer, x509.UnrecognizedExtension) else "")


def ambient_token() -> str:
    """The token that the CI system gives to its job. Raises KeyInvalid where there is none."""
    _check_library()
    from sigstore.oidc import IdentityError, detect_credential

    try:
        token = detect_credential()
    except IdentityError as error:
        raise KeyInvalid(f"this CI system gives no identity token ({error}); allow the job to ask for one") from error
    if token is None:
        raise KeyInvalid("no identity token: this is no CI job that gives one; name a file by --identity-token-file")
    return token


def _has_certificate(data: bytes) -> bool:
    try:
        material = json.loads(data)["verificationMaterial"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleRefused(f"it is no Sigstore bundle ({type(error).__name__})") from error
    return isinstance(material, dict) and "publicKey" not in material


def _trust(file: Path | None) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    if file is None:
        return ClientTrustConfig.production()
    try:
        return ClientTrustConfig.from_json(file.read_text())
    except (OSError, ValueError) as error:
        raise KeyInvalid(
            f"{file} is no client trust config of Sigstore ({error}); get it from who runs yours"
        ) from error


def _check_library() -> None:
    try:
        import sigstore  # noqa: F401
    except ImportError as error:
        raise KeyInvalid(f"keyless signing needs the library sigstore ({error}); run pip install sigstore") from error


@contextmanager
def _services() -> Iterator[None]:
    """Whatever the library raises of Fulcio, Rekor and TUF; they have no common base."""
    from requests import RequestException
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error

    try:
        yield
    except (Error, FulcioClientError, RekorClientError, ExpiredCertificate, RequestException) as error:
        raise SigstoreFailed(
            f"Sigstore's services did not answer as they should: {_said(error)}; see that they can be reached, or name yours "
            "by --trust-config"
        ) from error


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
