"""Signed statements: in-toto Statement v1 in a DSSE envelope in a Sigstore bundle v0.3 with a static key.

Pure: bytes in, bytes out. What the statements say is in attest.py, content.py and sbom.py; where they are stored is in
referrers.py. Certificates, transparency logs and timestamps are not used.
Sources: DSSE v1.0.2 protocol.md; in-toto attestation spec v1; sigstore protobuf-specs sigstore_bundle.proto v0.3.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.modelcar.image import canonical_json, sha256_digest
from serving.modelcar.keys import PublicKey
from serving.modelcar.signer import Signer

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_STATEMENT_BYTES = 16 << 20


class EnvelopeInvalid(ValueError):
    """The bytes are no bundle or statement of the one form that is written here."""


@dataclass(frozen=True)
class Statement:
    """An in-toto statement: `data` is its JSON as signed, `digest` the sha256 of that."""

    data: bytes
    predicate_type: str
    subjects: tuple[str, ...]  # sha256 of each, as hexadecimal

    @property
    def digest(self) -> str:
        return sha256_digest(self.data)

    @property
    def subject_name(self) -> str:
        """Of the first subject; '' where it has none."""
        return str(json.loads(self.data)["subject"][0].get("name") or "")

    @property
    def predicate(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.data)["predicate"]
        return value


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope with one signature; the statement inside is not trusted before the signature is verified."""

    payload: bytes
    payload_type: str
    signature: bytes

    def signed_by(self, key: PublicKey) -> bool:
        return self.payload_type == PAYLOAD_TYPE and key.verifies(self.signature, pae(self.payload_type, self.payload))

    def document(self, *, keyid: bool) -> dict[str, Any]:
        """As JSON. cosign's `.att` wants a keyid, be it empty; its bundles have none."""
        signature = {"sig": base64.b64encode(self.signature).decode()} | ({"keyid": ""} if keyid else {})
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [signature],
        }


def statement(predicate_type: str, subject: str, sha256: str, predicate: Mapping[str, Any]) -> Statement:
    """About the one thing of that name whose sha256 (hexadecimal) is given."""
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    return Statement(canonical_json(document), predicate_type, (sha256,))


def parse_statement(data: bytes) -> Statement:
    """Raises EnvelopeInvalid."""
    document = _json_object(data, "a statement")
    subjects = document.get("subject")
    if document.get("_type") != STATEMENT_TYPE or not isinstance(document.get("predicate"), dict):
        raise EnvelopeInvalid(f"the statement is a {document.get('_type')!r}, not {STATEMENT_TYPE}")
    try:
        digests = tuple(str(subject["digest"]["sha256"]) for subject in subjects or ())
    except (KeyError, TypeError) as error:
        raise EnvelopeInvalid("the statement has a subject without a sha256") from error
    if not digests or not isinstance(document.get("predicateType"), str):
        raise EnvelopeInvalid("the statement names no subject or no predicate type")
    return Statement(data, document["predicateType"], digests)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def sign_statement(claim: Statement, key: Signer) -> Envelope:
    return Envelope(claim.data, PAYLOAD_TYPE, key.sign(pae(PAYLOAD_TYPE, claim.data)))


def bundle(envelope: Envelope, hint: str) -> bytes:
    """The Sigstore bundle as JSON. `hint` names the key: PublicKey.hint, or .pem_hint for model_signing."""
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": envelope.document(keyid=False),
        }
    )


def parse_bundle(data: bytes) -> tuple[Envelope, str]:
    """The envelope and the hint. Raises EnvelopeInvalid; a bundle with a certificate has the hint ''."""
    document = _json_object(data, "a bundle")
    if document.get("mediaType") != BUNDLE_TYPE:
        raise EnvelopeInvalid(f"the bundle is a {document.get('mediaType')!r}, not {BUNDLE_TYPE}")
    material = document.get("verificationMaterial")
    key = material.get("publicKey") if isinstance(material, dict) else None
    hint = key.get("hint") if isinstance(key, dict) else None
    return parse_envelope(document.get("dsseEnvelope")), hint if isinstance(hint, str) else ""


def parse_envelope(document: object) -> Envelope:
    """Raises EnvelopeInvalid."""
    fields = document if isinstance(document, dict) else {}
    try:
        (signature,) = fields["signatures"]
        return Envelope(_decoded(fields["payload"]), str(fields["payloadType"]), _decoded(signature["sig"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EnvelopeInvalid("the DSSE envelope lacks a payload, its type, or exactly one signature") from error


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _json_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EnvelopeInvalid(f"{what} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise EnvelopeInvalid(f"{what} is not a JSON object")
    return value
