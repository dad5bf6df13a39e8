"""Signs and verifies an image without a key: every statement is a Sigstore bundle of an identity, attached as a referrer.

The statement `cosign/sign/v1` about the image lists the others by digest in its predicate, as a key's signature does in
its payload. There is no `.sig` and no `.att` tag: cosign up to 2 and Kyverno's static-key policies do not read these bundles.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from serving.modelcar.attest import check_predicate
from serving.modelcar.content import CONTENT, WORKERS, FileDigest
from serving.modelcar.document import Document
from serving.modelcar.envelope import statement
from serving.modelcar.keyless import Attested, BundleRefused, Identity, KeylessSigner, KeylessVerifier, signer_of
from serving.modelcar.reference import Reference
from serving.modelcar.referrers import AttachmentInvalid, ReferrersInvalid, attach, list_referrers, read_attachment
from serving.modelcar.sbom import SBOM
from serving.modelcar.sign import Signed, attachment, content_of, sbom_of
from serving.modelcar.signature import STATEMENT_PREFIX, Claim
from serving.modelcar.signed import (
    SIGN,
    SIGNED_TYPES,
    AttestationTampered,
    IndexTampered,
    SignatureForeign,
    SignatureTampered,
    Unsigned,
    listed_statements,
    subject_of,
)
from serving.modelcar.store import ImageStore
from serving.modelcar.verify import ALWAYS_SIGNED, Evidence, Verified, image_of, judged


def sign_keyless(
    store: ImageStore,
    digest: str,
    signer: KeylessSigner,
    name: str,
    *,
    predicates: Mapping[str, Mapping[str, Any]] = {},
    files: Sequence[FileDigest] | None = None,
) -> tuple[Identity, Signed]:
    """Signs the image under the name `name` (HOST/REPOSITORY), and says as whom. What that identity attested before is
    replaced. Raises what `sign.sign` raises, and SigstoreFailed.
    """
    for kind, predicate in predicates.items():
        check_predicate(kind, predicate)
    image = store.get_manifest(digest)
    content = content_of(store, image, name, files)
    claims = {SBOM: sbom_of(image, name, content), **predicates}
    made = {kind: statement(kind, name, subject_of(image), value) for kind, value in claims.items()}
    made[CONTENT] = content
    listed = {f"{STATEMENT_PREFIX}{kind}": value.digest for kind, value in sorted(made.items())}
    made[SIGN] = statement(SIGN, name, subject_of(image), listed)  # last: cut short, the image is unsigned
    bundles = {kind: signer.bundle(value) for kind, value in made.items()}
    identity = signer_of(bundles[SIGN])
    verifier = KeylessVerifier(identity, signer.trust_config)
    attachments = [attachment(kind, data) for kind, data in bundles.items()]
    try:
        attach(store, image, attachments, partial(_replaced, store, digest, verifier))
    except ReferrersInvalid as error:
        raise IndexTampered(f"{error}; push the image again to another repository") from error
    digests = tuple(sorted((kind, value.digest) for kind, value in made.items()))
    return identity, Signed(digest, made[SIGN].digest, digests)


def verify_keyless(
    reference: Reference,
    verifier: KeylessVerifier,
    store: ImageStore,
    *,
    required: Collection[str] = ALWAYS_SIGNED,
    recorded: Collection[str] | None = None,
    layers: bool = True,
    report: Callable[[int], None] = lambda _: None,
    workers: int = WORKERS,
) -> Verified:
    """As `verify.verify`, by an identity instead of a key; `payload_digest` is that of the statement that signs."""
    image = image_of(reference, store)
    evidence = _by_identity(store, image, verifier)
    return judged(reference, image, evidence, store, required, recorded, layers, report, workers)


def _by_identity(store: ImageStore, image: Document, verifier: KeylessVerifier) -> Evidence:
    found = _attested(store, image.digest, verifier)
    signatures = [one for one in found if one.statement.predicate_type == SIGN]
    about = [one for one in signatures if one.statement.subjects == (subject_of(image),)]
    if not about:
        _refuse(store, image.digest, verifier, bool(signatures))
    newest = max(about, key=lambda one: (one.signed_at, len(one.statement.predicate))).statement
    by_digest = {one.statement.digest: one.statement for one in found}
    claim = Claim(newest.subject_name, image.digest, {k: v for k, v in newest.predicate.items() if isinstance(v, str)})
    statements = {SIGN: newest, **listed_statements(claim, by_digest, "the list of its referrers")}
    return Evidence(claim.identity, str(verifier.identity), newest.digest, statements)


def _refuse(store: ImageStore, digest: str, verifier: KeylessVerifier, of_another: bool) -> None:
    if of_another:
        raise SignatureTampered(f"the signature at {store.name}@{digest} is for another image; it was moved here")
    if any(entry.get("artifactType") in SIGNED_TYPES for entry in _entries(store, digest)):
        raise SignatureForeign(
            f"{store.name}@{digest} has signatures and none is by {verifier.identity}; verify with the signer's identity "
            "or key, or sign it again"
        )
    raise Unsigned(f"{store.name}@{digest} is not signed; sign it with `liftlock modelcar sign`")


def _attested(store: ImageStore, digest: str, verifier: KeylessVerifier) -> list[Attested]:
    entries = [entry for entry in _entries(store, digest) if entry.get("artifactType") in SIGNED_TYPES]
    found = (_entry(store, digest, verifier, entry) for entry in entries)
    return [one for one in found if one is not None]


def _entries(store: ImageStore, digest: str) -> tuple[dict[str, Any], ...]:
    try:
        return list_referrers(store, digest)
    except ReferrersInvalid as error:
        raise IndexTampered(f"{error}; sign the image again in another repository") from error


def _entry(store: ImageStore, digest: str, verifier: KeylessVerifier, entry: Mapping[str, Any]) -> Attested | None:
    try:
        return verifier.attested(read_attachment(store, digest, entry).data)
    except (AttachmentInvalid, BundleRefused) as error:
        raise AttestationTampered(
            f"the bundle {entry['digest']} beside {digest}: {error}; sign the image again in another repository"
        ) from error


def _replaced(store: ImageStore, digest: str, verifier: KeylessVerifier, entry: Mapping[str, Any]) -> bool:
    """This identity's earlier bundles leave the list; damaged ones stay, for they may be another's."""
    if entry.get("artifactType") not in SIGNED_TYPES:
        return False
    try:
        return _entry(store, digest, verifier, entry) is not None
    except AttestationTampered:
        return False
