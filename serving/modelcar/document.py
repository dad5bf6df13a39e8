"""What a store of images gives back, how one may be reached, and what goes wrong with it. Values only."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_MANIFEST_BYTES = 4 << 20  # the limit that the distribution spec lets a registry set


class ImageMissing(LookupError):
    """The registry or layout has no such manifest, or the user may not see it."""


class RegistryFailed(RuntimeError):
    """The registry did not do what was asked, after the retries that could help. Blobs it took are not sent again."""


class DocumentInvalid(ValueError):
    """A manifest or index is not the JSON object that it should be."""


@dataclass(frozen=True)
class Access:
    """How to reach a registry.

    `auth_file` is a Docker config.json; `ca_file` a PEM file of further authorities; `timeout_seconds` is how long a
    connection may stand still. HTTP without TLS is used for loopback addresses, unless a `ca_file` is given, and where
    `plain_http` asks for it.
    """

    auth_file: Path | None = None
    ca_file: Path | None = None
    plain_http: bool = False
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Document:
    """A manifest or index: its bytes are what its digest says."""

    digest: str
    media_type: str
    data: bytes

    def json(self) -> dict[str, Any]:
        """Raises DocumentInvalid."""
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise DocumentInvalid(f"manifest {self.digest} is not JSON ({error}); build the image again") from error
        if not isinstance(value, dict):
            raise DocumentInvalid(f"manifest {self.digest} is not a JSON object; build the image again")
        return value


def document_of(data: bytes, media_type: str = "") -> Document:
    """The document's own `mediaType` goes before the one that the store names."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    plain = Document(digest, media_type, data)
    own = plain.json().get("mediaType")
    return Document(digest, own, data) if isinstance(own, str) else plain
