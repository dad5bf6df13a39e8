"""Signs an image in a registry or a layout folder: its statements, and then the signature that lists them.

The signature comes last: an image whose signing was cut short is unsigned, never half signed. Signing again with the
same key and evidence writes the same bytes; with more evidence it keeps what this key attested before. Two signers of
one image at the same moment can lose one another's signature, for registries have no compare-and-swap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.modelcar.attest import check_predicate
from serving.modelcar.content import CONTENT, FileDigest, content_files, content_statement, hash_layers
from serving.modelcar.document import Document, DocumentInvalid
from serving.modelcar.envelope import BUNDLE_TYPE, ENVELOPE_TYPE, Envelope, Statement, bundle, sign_statement, statement
from serving.modelcar.image import EPOCH, LAYER_TYPE, canonical_json, sha256_digest
from serving.modelcar.keys import PublicKey
from serving.modelcar.referrers import Attachment, ReferrersInvalid, attach
from serving.modelcar.sbom import SBOM, sbom
from serving.modelcar.signature import (
    SIGNATURE_ANNOTATION,
    STATEMENT_PREFIX,
    Blob,
    Claim,
    cosign_layer,
    cosign_manifest,
    payload,
    signature_blob,
    tag_of,
)
from serving.modelcar.signed import (
    CONTENT_TYPE,
    SIGN,
    SIGNED_TYPES,
    IndexTampered,
    SignatureForeign,
    Unsigned,
    VerificationFailed,
    cosign_layers,
    entry_statement,
    layer_claim,
    layer_envelope,
    listed_statements,
    read_claim,
    read_statements,
    subject_of,
)
from serving.modelcar.signer import Signer
from serving.modelcar.store import ImageStore


@dataclass(frozen=True)
class Signed:
    """What was signed: the image's digest, the digest of the signed payload, and each statement's type and sha256."""

    digest: str
    payload_digest: str
    statements: tuple[tuple[str, str], ...]


def sign(
    store: ImageStore,
    digest: str,
    key: Signer,
    identity: str,
    *,
    predicates: Mapping[str, Mapping[str, Any]] = {},
    files: Sequence[FileDigest] | None = None,
    fresh: bool = False,
) -> Signed:
    """Signs the image under the name `identity` (HOST/REPOSITORY). `predicates` are further in-toto predicates by type,
    such as attest.provenance_predicate's. `files` are the model's files where the caller has just hashed them; else the
    layers are read. `fresh` leaves out, and replaces, what this key attested before, which is the way out of damage.

    Raises ImageMissing, PredicateInvalid, DocumentInvalid (no image manifest), DigestMismatch (a damaged layer),
    RegistryFailed, and VerificationFailed where what was signed before is damaged and `fresh` is not given.
    """
    for kind, predicate in predicates.items():
        check_predicate(kind, predicate)
    image = store.get_manifest(digest)
    kept = {} if fresh else _kept(store, digest, key.public)
    content = kept[CONTENT] if files is None and CONTENT in kept else content_of(store, image, identity, files)
    claims = {SIGN: {}, SBOM: sbom_of(image, identity, content), **predicates}
    made = {kind: statement(kind, identity, subject_of(image), value) for kind, value in claims.items()}
    statements = {**kept, **made, CONTENT: content}
    envelopes = {kind: sign_statement(value, key) for kind, value in sorted(statements.items())}
    order = (SIGN, *(kind for kind in envelopes if kind != SIGN))
    hints = {kind: key.public.pem_hint if kind == CONTENT else key.public.hint for kind in order}
    attachments = [attachment(kind, bundle(envelopes[kind], hints[kind])) for kind in order]
    try:
        attach(store, image, attachments, partial(_replaced, store, digest, key.public), fresh)
    except ReferrersInvalid as error:
        raise IndexTampered(f"{error}; sign the image again with --fresh") from error
    beside = [_legacy(kind, envelope) for kind, envelope in envelopes.items() if kind not in (SIGN, CONTENT)]
    _put_beside(store, digest, ".att", beside, key.public, fresh)
    listed = {f"{STATEMENT_PREFIX}{kind}": value.digest for kind, value in statements.items()}
    data = payload(Claim(identity, digest, listed))
    _put_beside(store, digest, ".sig", [signature_blob(data, key.sign(data))], key.public, fresh)
    return Signed(digest, sha256_digest(data), tuple(sorted((kind, v.digest) for kind, v in statements.items())))


def _kept(store: ImageStore, digest: str, key: PublicKey) -> dict[str, Statement]:
    """What this key attested before, as its signature lists it."""
    try:
        signed = read_claim(store, digest, key)
    except (Unsigned, SignatureForeign):
        return {}
    return listed_statements(signed.claim, read_statements(store, digest, key), "the list of its referrers")


def content_of(store: ImageStore, image: Document, identity: str, files: Sequence[FileDigest] | None) -> Statement:
    """The statement of the model's files: those that are given, else as the layers hold them. Raises DocumentInvalid."""
    layers = image.json().get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) and "digest" in layer for layer in layers):
        raise DocumentInvalid(f"{image.digest} is no image manifest with layers; name an image, not an index")
    if files is None:
        readable = [layer for layer in layers if layer.get("mediaType") == LAYER_TYPE]
        files = hash_layers([partial(store.blob_blocks, layer["digest"], layer["size"]) for layer in readable])
    return content_statement(identity.rpartition("/")[2], files)


def sbom_of(image: Document, identity: str, content: Statement) -> dict[str, Any]:
    annotations = image.json().get("annotations") or {}
    return sbom(identity, image.digest, annotations, content_files(content))


def attachment(kind: str, data: bytes) -> Attachment:
    """A bundle as a referrer, under the type that its reader looks for."""
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": kind,
        "org.opencontainers.image.created": EPOCH,
    }
    return Attachment(CONTENT_TYPE if kind == CONTENT else BUNDLE_TYPE, BUNDLE_TYPE, data, annotations)


def _legacy(kind: str, envelope: Envelope) -> Blob:
    data = canonical_json(envelope.document(keyid=True))
    return Blob(data, ENVELOPE_TYPE, {SIGNATURE_ANNOTATION: "", "predicateType": kind})


def _replaced(store: ImageStore, digest: str, key: PublicKey, entry: Mapping[str, Any]) -> bool:
    """This key's earlier bundles, and damaged ones, leave the list."""
    if entry.get("artifactType") not in SIGNED_TYPES:
        return False
    try:
        return entry_statement(store, digest, entry, key) is not None
    except VerificationFailed:
        return True


def _put_beside(store: ImageStore, digest: str, suffix: str, own: Sequence[Blob], key: PublicKey, fresh: bool) -> None:
    """Writes cosign's manifest beside the image: the layers of other keys, then `own`."""
    tag = tag_of(digest, suffix)
    try:
        layers = [
            layer for layer in cosign_layers(store, digest, suffix) or () if not _is_own(store, digest, layer, key)
        ]
        found = store.find_manifest(tag)
    except VerificationFailed:
        if not fresh:
            raise
        layers, found = [], None
    config, manifest = cosign_manifest([*layers, *(cosign_layer(blob) for blob in own)])
    for data in (config, *(blob.data for blob in own)):
        store.put_blob(data)
    if found is None or found.data != manifest:
        store.put_manifest(manifest, tag)


def _is_own(store: ImageStore, digest: str, layer: Mapping[str, Any], key: PublicKey) -> bool:
    if layer.get("mediaType") == ENVELOPE_TYPE:
        return layer_envelope(store, digest, layer).signed_by(key)
    return layer_claim(store, digest, layer, key) is not None
