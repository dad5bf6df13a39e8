"""Is this image what was signed? Its manifest, its signature by a key, what was attested, and every byte of its layers.

A verifier trusts the public key that it is given and nothing that the registry says. Everything that Liftlock signed
about an image is listed in its signature by digest, so a removed, replaced or older attestation is missed. What a stolen
key signs, and a registry that brings back a whole earlier set of signatures of the same image, are not found here;
against the second, give `payload`.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from serving.modelcar.attest import PROVENANCE, VERDICT
from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.content import CONTENT, WORKERS, FileDigest, content_files
from serving.modelcar.document import Document, ImageMissing
from serving.modelcar.envelope import EnvelopeInvalid, Statement
from serving.modelcar.keys import PublicKey
from serving.modelcar.layout import LayoutInvalid
from serving.modelcar.reference import Reference
from serving.modelcar.sbom import SBOM
from serving.modelcar.signed import (
    SIGN,
    AttestationMissing,
    AttestationTampered,
    IndexTampered,
    VerificationFailed,
    listed_statements,
    read_claim,
    read_legacy_statements,
    read_statements,
    subject_of,
)
from serving.modelcar.store import ImageStore

ALWAYS_SIGNED = (SIGN, CONTENT, SBOM)
RELEASE = (*ALWAYS_SIGNED, PROVENANCE, VERDICT)
_NOT_IN_ATT = (SIGN, CONTENT)  # the first says nothing more than the signature, the second is not about the image


class ManifestTampered(VerificationFailed):
    """The image's manifest is not what its digest says, or is no image manifest."""


class LayerTampered(VerificationFailed):
    """A layer or the config is absent, or holds other bytes than the manifest says."""


class TagMoved(VerificationFailed):
    """The tag names another image than the digest that was asked for."""


class SignatureReplaced(VerificationFailed):
    """The image is signed, but not by the signature that was recorded when it was released."""


class VerdictRefused(VerificationFailed):
    """The gate's signed verdict is not that the model passed."""


class EvidenceMissing(VerificationFailed):
    """The ledger's evidence does not name this image."""


@dataclass(frozen=True)
class Evidence:
    """Who signed, as what, and the statements that the signature lists, by predicate type."""

    identity: str
    key: str
    payload_digest: str
    statements: Mapping[str, Statement]


@dataclass(frozen=True)
class Verified:
    """What is now known of the image. `key` is the key's fingerprint, or the identity that signed without one.

    `statements` are (predicate type, sha256 of the statement); `bytes_read` is 0 where the layers were not asked for;
    `verdict` is PASSED, FAILED, WARNED, or None where none is attested.
    """

    reference: str
    digest: str
    identity: str
    key: str
    payload_digest: str
    statements: tuple[tuple[str, str], ...]
    files: tuple[FileDigest, ...]
    verdict: str | None
    bytes_read: int


def verify(
    reference: Reference,
    key: PublicKey,
    store: ImageStore,
    *,
    required: Collection[str] = ALWAYS_SIGNED,
    recorded: Collection[str] | None = None,
    payload: str | None = None,
    layers: bool = True,
    report: Callable[[int], None] = lambda _: None,
    workers: int = WORKERS,
) -> Verified:
    """`required`: predicate types that must be attested; the verdict among them must be PASSED. `recorded`: the image
    digests that the ledger's evidence names. `payload`: the digest of the signed payload that was recorded. `report`
    gets the number of bytes of each block of the layers, from several threads.

    Raises a VerificationFailed, ImageMissing, RegistryFailed.
    """
    image = image_of(reference, store)
    evidence = _by_key(store, image, key, payload)
    return judged(reference, image, evidence, store, required, recorded, layers, report, workers)


def _by_key(store: ImageStore, image: Document, key: PublicKey, payload: str | None) -> Evidence:
    signed = read_claim(store, image.digest, key)
    if payload not in (None, signed.payload_digest):
        raise SignatureReplaced(
            f"{image.digest} carries the signature {signed.payload_digest}, recorded is {payload}: an earlier or later "
            "one was put in its place; sign the image again, or release it anew"
        )
    statements = listed_statements(signed.claim, read_statements(store, image.digest, key), "the list of its referrers")
    _check_legacy(store, image.digest, key, statements)
    return Evidence(signed.claim.identity, key.fingerprint, signed.payload_digest, statements)


def judged(
    reference: Reference,
    image: Document,
    evidence: Evidence,
    store: ImageStore,
    required: Collection[str],
    recorded: Collection[str] | None,
    layers: bool,
    report: Callable[[int], None],
    workers: int,
) -> Verified:
    """Whether what is attested is what is wanted, and the layers what the manifest says. Raises a VerificationFailed."""
    statements = evidence.statements
    _check_required(image, statements, required)
    if recorded is not None and image.digest not in recorded:
        raise EvidenceMissing(
            f"no line of the ledger names {image.digest} in its evidence; release it with `liftlock release`"
        )
    verdict = statements[VERDICT].predicate.get("result") if VERDICT in statements else None
    return Verified(
        reference=reference.pinned(image.digest),
        digest=image.digest,
        identity=evidence.identity,
        key=evidence.key,
        payload_digest=evidence.payload_digest,
        statements=tuple(sorted((kind, statement.digest) for kind, statement in statements.items())),
        files=_files(statements),
        verdict=None if verdict is None else str(verdict),
        bytes_read=_check_blobs(store, image, report, workers) if layers else 0,
    )


def image_of(reference: Reference, store: ImageStore) -> Document:
    image = _find(store, reference.wanted)
    if image is None:
        raise ImageMissing(f"{reference} is not there; name an image that was pushed")
    tagged = _find(store, reference.tag) if reference.tag and reference.digest else image
    if tagged is None or tagged.digest != image.digest:
        now = tagged.digest if tagged else "nothing"
        raise TagMoved(
            f"the tag {reference.tag} of {reference.name} names {now}, not {reference.digest}: somebody moved it; "
            "find out who, then push the image again"
        )
    entries = image.json()
    blobs = [entries.get("config"), *(entries.get("layers") or [None])]
    if not all(isinstance(blob, dict) and _is_descriptor(blob) for blob in blobs):
        raise ManifestTampered(f"{image.digest} is no image manifest with a config and layers; name one that is")
    return image


def _find(store: ImageStore, reference: str) -> Document | None:
    try:
        return store.find_manifest(reference)
    except LayoutInvalid as error:
        raise IndexTampered(f"the index of {store.name} is damaged ({error}); build the image again") from error
    except (DigestMismatch, ValueError) as error:
        raise ManifestTampered(
            f"the manifest {reference} of {store.name} is damaged ({error}); do not use it"
        ) from error


def _check_legacy(store: ImageStore, digest: str, key: PublicKey, statements: Mapping[str, Statement]) -> None:
    """What cosign 2 and Kyverno read must say the same as the bundles."""
    there = read_legacy_statements(store, digest, key)
    for kind, statement in statements.items():
        if kind not in _NOT_IN_ATT and statement.digest not in there:
            raise AttestationMissing(
                f"{digest} has the attestation {kind} as a bundle and not under its .att tag; sign it again"
            )


def _check_required(image: Document, statements: Mapping[str, Statement], required: Collection[str]) -> None:
    missing = sorted(set(required) - set(statements))
    if missing:
        raise AttestationMissing(f"{image.digest} is signed and lacks {', '.join(missing)}; sign it with that evidence")
    for kind, statement in statements.items():
        if kind != CONTENT and statement.subjects != (subject_of(image),):
            raise AttestationTampered(
                f"the statement {kind} beside {image.digest} is about another image; sign it again"
            )
    if VERDICT in required and statements[VERDICT].predicate.get("result") != "PASSED":
        found = statements[VERDICT].predicate.get("result")
        raise VerdictRefused(
            f"the gate's verdict on {image.digest} is {found}; only PASSED is served; train or judge again"
        )


def _files(statements: Mapping[str, Statement]) -> tuple[FileDigest, ...]:
    if CONTENT not in statements:
        return ()
    try:
        return content_files(statements[CONTENT])
    except EnvelopeInvalid as error:
        raise AttestationTampered(f"{error}; sign the image again") from error


def _check_blobs(store: ImageStore, image: Document, report: Callable[[int], None], workers: int) -> int:
    """Reads the config and each layer once, several at a time; returns the bytes read."""
    manifest = image.json()
    blobs = {blob["digest"]: blob for blob in (manifest["config"], *manifest["layers"])}
    largest_first = sorted(blobs.values(), key=lambda blob: -int(blob["size"]))
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return sum(pool.map(lambda blob: _check_blob(store, blob, report), largest_first))


def _check_blob(store: ImageStore, blob: dict[str, Any], report: Callable[[int], None]) -> int:
    digest, size = str(blob["digest"]), int(blob["size"])
    if not store.has_blob(digest, size):
        raise LayerTampered(f"the layer {digest} of {store.name} is absent or has not its {size} bytes; push it again")
    try:
        for block in store.blob_blocks(digest, size):
            report(len(block))
    except DigestMismatch as error:
        raise LayerTampered(f"the layer {digest} of {store.name} holds other bytes: {error}") from error
    return size


def _is_descriptor(blob: dict[str, Any]) -> bool:
    return isinstance(blob.get("digest"), str) and type(blob.get("size")) is int and blob["size"] >= 0
