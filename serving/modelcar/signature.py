"""cosign's first signature format: a "simple signing" payload that names the image, stored under the tag `sha256-….sig`.

Pure. It is what `cosign verify` up to version 2 and Kyverno's verifyImages read by default. The payload's `optional`
part carries what cosign calls annotations; Liftlock lists there the digest of each statement it signed about the image,
so that a statement that somebody removes is missed.
Sources: containers/image simple signing; cosign's specs/SIGNATURE_SPEC.md.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.modelcar.image import CONFIG_TYPE, MANIFEST_TYPE, canonical_json, descriptor, sha256_digest

SIMPLE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
CLAIM_TYPE = "cosign container image signature"
STATEMENT_PREFIX = "dev.liftlock.statement/"
MAX_PAYLOAD_BYTES = 1 << 20
_ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time, as cosign writes it


class PayloadInvalid(ValueError):
    """The signed payload is no claim about an image."""


@dataclass(frozen=True)
class Claim:
    """What a signature says: the image of this digest, under this name, with these annotations."""

    identity: str
    digest: str
    annotations: Mapping[str, str]

    @property
    def statements(self) -> dict[str, str]:
        """Digest of each listed statement by its predicate type."""
        found = self.annotations.items()
        return {key.removeprefix(STATEMENT_PREFIX): value for key, value in found if key.startswith(STATEMENT_PREFIX)}


@dataclass(frozen=True)
class Blob:
    """A small blob and how a manifest of cosign's describes it."""

    data: bytes
    media_type: str
    annotations: Mapping[str, str]


def tag_of(digest: str, suffix: str) -> str:
    """cosign's tag beside an image: `sha256-<hex>.sig`, `.att`, or without suffix the OCI referrers fallback."""
    return digest.replace(":", "-") + suffix


def payload(claim: Claim) -> bytes:
    """As Go's JSON encoder writes it, for cosign compares nothing but other tools may."""
    document = {
        "critical": {
            "identity": {"docker-reference": claim.identity},
            "image": {"docker-manifest-digest": claim.digest},
            "type": CLAIM_TYPE,
        },
        "optional": dict(sorted(claim.annotations.items())) or None,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def parse_payload(data: bytes) -> Claim:
    """Raises PayloadInvalid."""
    try:
        document = json.loads(data)
        critical = document["critical"]
        identity, digest = critical["identity"]["docker-reference"], critical["image"]["docker-manifest-digest"]
        kind, optional = critical["type"], document.get("optional") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadInvalid("the signed payload is not simple-signing JSON") from error
    if kind != CLAIM_TYPE or not isinstance(identity, str) or not isinstance(digest, str):
        raise PayloadInvalid(f"the signed payload is a {kind!r}, not a {CLAIM_TYPE!r}")
    pairs = optional.items() if isinstance(optional, dict) else ()
    return Claim(identity, digest, {key: value for key, value in pairs if isinstance(value, str)})


def signature_blob(data: bytes, signature: bytes) -> Blob:
    return Blob(data, SIMPLE_TYPE, {SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()})


def signature_bytes(annotations: Mapping[str, Any]) -> bytes | None:
    """The signature that a layer's annotations carry, None where there is none."""
    try:
        return base64.b64decode(annotations[SIGNATURE_ANNOTATION], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None


def cosign_layer(blob: Blob) -> dict[str, Any]:
    """The blob as a manifest of cosign's lists it."""
    entry = descriptor(blob.media_type, sha256_digest(blob.data), len(blob.data))
    return entry | {"annotations": dict(blob.annotations)}


def cosign_manifest(layers: Sequence[Mapping[str, Any]]) -> tuple[bytes, bytes]:
    """The config and the manifest that list the layers the way cosign stores signatures and attestations."""
    config = canonical_json(
        {
            "architecture": "",
            "created": _ZERO_TIME,
            "history": [{"created": _ZERO_TIME} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            "config": {},
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, sha256_digest(config), len(config)),
        "layers": [dict(layer) for layer in layers],
    }
    return config, canonical_json(document)
