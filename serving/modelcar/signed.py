"""Reads what is signed about an image: cosign's signature, and the statements in bundles and in the `.att` manifest.

Everything is judged by one public key. Signatures of other keys are passed over, because several parties may sign an
image; what claims to be of this key and is not what it was is an error. Layers are not read here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.content import CONTENT
from serving.modelcar.document import Document, ImageMissing
from serving.modelcar.envelope import (
    BUNDLE_TYPE,
    ENVELOPE_TYPE,
    MAX_STATEMENT_BYTES,
    Envelope,
    EnvelopeInvalid,
    Statement,
    parse_bundle,
    parse_envelope,
    parse_statement,
)
from serving.modelcar.image import sha256_digest
from serving.modelcar.keys import PublicKey
from serving.modelcar.referrers import (
    AttachmentInvalid,
    ReferrersInvalid,
    list_referrers,
    read_attachment,
    read_small,
)
from serving.modelcar.signature import (
    MAX_PAYLOAD_BYTES,
    SIMPLE_TYPE,
    Claim,
    PayloadInvalid,
    parse_payload,
    signature_bytes,
    tag_of,
)
from serving.modelcar.store import ImageStore

SIGN = "https://sigstore.dev/cosign/sign/v1"
# cosign 3 and newer Kyverno take any referrer of the bundle's own type for a signature of the image. The content's
# subject is the model's files, so it goes under a type of its own.
CONTENT_TYPE = "application/vnd.dev.liftlock.model-signing.v1+json"
SIGNED_TYPES = (BUNDLE_TYPE, CONTENT_TYPE)


class VerificationFailed(RuntimeError):
    """The image is not what was signed, or nobody signed it. Do not serve it; a retry is useless."""


class Unsigned(VerificationFailed):
    """The image has no signature."""


class SignatureForeign(VerificationFailed):
    """The image has signatures, and none is by this key over the bytes that are there."""


class SignatureTampered(VerificationFailed):
    """The signature, its payload or its manifest was changed or damaged, or it was made for another image."""


class AttestationMissing(VerificationFailed):
    """A statement that was signed about the image, or that is required, is not there."""


class AttestationTampered(VerificationFailed):
    """A statement, its bundle or its manifest was changed or damaged."""


class IndexTampered(VerificationFailed):
    """The list of what is attached to the image, or the layout's index, was changed or damaged."""


@dataclass(frozen=True)
class SignedClaim:
    """A payload that the key signed; `payload_digest` is the sha256 of its bytes."""

    claim: Claim
    payload_digest: str


def read_claim(store: ImageStore, digest: str, key: PublicKey) -> SignedClaim:
    """The newest signature of the key. Raises Unsigned, SignatureForeign, SignatureTampered."""
    manifest = cosign_layers(store, digest, ".sig")
    if manifest is None:
        raise Unsigned(f"{store.name}@{digest} is not signed; sign it with `liftlock modelcar sign`")
    claims = [claim for layer in manifest if (claim := layer_claim(store, digest, layer, key))]
    about = [claim for claim in claims if claim.claim.digest == digest]
    if about:  # `cosign sign` with the same key adds one that lists nothing
        return ([claim for claim in about if claim.claim.statements] or about)[-1]
    if claims:
        raise SignatureTampered(
            f"the signature at {store.name}@{digest} is for {claims[-1].claim.digest}; it was moved here from that image"
        )
    raise SignatureForeign(
        f"{store.name}@{digest} has {len(manifest)} signature(s) and none is by the key {key.fingerprint[:16]}…, or the "
        "signature was changed; verify with the signer's key, or sign it again"
    )


def read_statements(store: ImageStore, digest: str, key: PublicKey) -> dict[str, Statement]:
    """Each statement of the key that is attached as a bundle, by its digest. Raises AttestationTampered, IndexTampered."""
    try:
        entries = list_referrers(store, digest)
    except ReferrersInvalid as error:
        raise IndexTampered(f"{error}; sign the image again with --fresh") from error
    found = {}
    for entry in entries:
        if entry.get("artifactType") in SIGNED_TYPES:
            statement = entry_statement(store, digest, entry, key)
            if statement is not None:
                found[statement.digest] = statement
    return found


def read_legacy_statements(store: ImageStore, digest: str, key: PublicKey) -> dict[str, Statement]:
    """The same from the `.att` manifest, which cosign 2 and Kyverno read. Raises AttestationTampered."""
    found = {}
    for layer in cosign_layers(store, digest, ".att") or ():
        envelope = layer_envelope(store, digest, layer)
        if envelope.signed_by(key):
            statement = _statement(envelope, f"an attestation of {digest}")
            if layer["annotations"].get("predicateType") != statement.predicate_type:
                raise AttestationTampered(f"an attestation of {digest} is listed under another type than it has")
            found[statement.digest] = statement
    return found


def listed_statements(claim: Claim, found: Mapping[str, Statement], where: str) -> dict[str, Statement]:
    """What the signature lists, by predicate type. Raises AttestationMissing."""
    listed = {}
    for predicate_type, digest in claim.statements.items():
        statement = found.get(digest)
        if statement is None or statement.predicate_type != predicate_type:
            raise AttestationMissing(
                f"the signature of {claim.digest} lists a statement {predicate_type}, {digest[:19]}…, which {where} does "
                "not hold: it was removed or replaced; sign the image again with --fresh and its evidence"
            )
        listed[predicate_type] = statement
    return listed


def cosign_layers(store: ImageStore, digest: str, suffix: str) -> tuple[dict[str, Any], ...] | None:
    """The layers of the manifest under cosign's tag `.sig` or `.att`, None where there is none.

    Raises SignatureTampered or AttestationTampered, by the suffix.
    """
    kind = SignatureTampered if suffix == ".sig" else AttestationTampered
    tag = tag_of(digest, suffix)
    try:
        found = store.find_manifest(tag)
        layers = () if found is None else tuple(found.json()["layers"])
    except (DigestMismatch, ImageMissing, ValueError, KeyError, TypeError) as error:
        raise kind(f"{store.name}:{tag} is damaged ({error}); sign the image again with --fresh") from error
    if not all(isinstance(layer, dict) and isinstance(layer.get("annotations"), dict) for layer in layers):
        raise kind(f"{store.name}:{tag} is not a manifest as cosign writes it; sign the image again with --fresh")
    return None if found is None else layers


def layer_claim(store: ImageStore, digest: str, layer: Mapping[str, Any], key: PublicKey) -> SignedClaim | None:
    """What a layer of the signature manifest says, None where another key signed it. Raises SignatureTampered."""
    signature = signature_bytes(layer["annotations"])
    if layer.get("mediaType") != SIMPLE_TYPE or signature is None:
        raise SignatureTampered(
            f"{digest} has a signature without its bytes or of another type; sign the image again with --fresh"
        )
    try:
        data = read_small(store, layer, MAX_PAYLOAD_BYTES)
        claim = parse_payload(data) if key.verifies(signature, data) else None
    except (DigestMismatch, PayloadInvalid, KeyError, TypeError) as error:
        raise SignatureTampered(
            f"the signed payload of {digest} is absent or damaged ({error}); sign it again with --fresh"
        ) from error
    return SignedClaim(claim, sha256_digest(data)) if claim else None


def entry_statement(store: ImageStore, digest: str, entry: Mapping[str, Any], key: PublicKey) -> Statement | None:
    """What a listed bundle says, None where another key signed it. Raises AttestationTampered."""
    try:
        attached = read_attachment(store, digest, entry)
        envelope, hint = parse_bundle(attached.data)
    except (AttachmentInvalid, EnvelopeInvalid) as error:
        raise AttestationTampered(
            f"{entry['digest']} beside {digest}: {error}; sign the image again with --fresh"
        ) from error
    of_content = attached.artifact_type == CONTENT_TYPE
    named = hint == (key.pem_hint if of_content else key.hint)
    if not envelope.signed_by(key):
        if named:
            raise AttestationTampered(
                f"the bundle {entry['digest']} of {digest} names this key and its signature is not the key's: its "
                "content was changed; sign the image again with --fresh"
            )
        return None
    statement = _statement(envelope, f"the bundle {entry['digest']}")
    if (statement.predicate_type == CONTENT) != of_content or not named:
        raise AttestationTampered(f"the bundle {entry['digest']} of {digest} is filed under a wrong type or key")
    return statement


def _statement(envelope: Envelope, what: str) -> Statement:
    try:
        return parse_statement(envelope.payload)
    except EnvelopeInvalid as error:
        raise AttestationTampered(
            f"{what} is signed and holds no statement ({error}); sign the image again with --fresh"
        ) from error


def layer_envelope(store: ImageStore, digest: str, layer: Mapping[str, Any]) -> Envelope:
    """The envelope in a layer of the attestation manifest, by whatever key. Raises AttestationTampered."""
    try:
        if layer.get("mediaType") != ENVELOPE_TYPE:
            raise EnvelopeInvalid(f"a layer is a {layer.get('mediaType')!r}")
        return parse_envelope(json.loads(read_small(store, layer, MAX_STATEMENT_BYTES)))
    except (DigestMismatch, EnvelopeInvalid, ValueError, KeyError, TypeError) as error:
        raise AttestationTampered(
            f"an attestation of {digest} is absent or damaged ({error}); sign it again with --fresh"
        ) from error


def subject_of(document: Document) -> str:
    """The image's sha256 as in-toto subjects hold it: hexadecimal."""
    return document.digest.removeprefix("sha256:")
