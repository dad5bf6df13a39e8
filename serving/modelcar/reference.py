"""Names of images: `HOST/REPOSITORY:TAG@DIGEST` in a registry, `oci:FOLDER:TAG@DIGEST` in an OCI image layout folder.

Parsing only; nothing is looked up. The grammar is the distribution spec's ("Pulling manifests") and Docker's.
"""

import re
from dataclasses import dataclass
from pathlib import Path

LAYOUT_PREFIX = "oci:"
# distribution-spec, "Pulling manifests".
REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?")
_LAYOUT_TAG = re.compile(r"(.+):([a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})", re.DOTALL)


class ReferenceInvalid(ValueError):
    """The text names no image."""


@dataclass(frozen=True)
class Reference:
    """Where an image is or shall be; `host` and `repository` are empty for a layout folder, `folder` for a registry.

    `scheme` is http, https, or empty where the text left it open.
    """

    host: str
    repository: str
    folder: str
    tag: str | None
    digest: str | None
    scheme: str = ""

    @property
    def is_layout(self) -> bool:
        return bool(self.folder)

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{LAYOUT_PREFIX}{self.folder}" if self.is_layout else f"{self.host}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest before the tag, for a tag may move."""
        return self.digest or self.tag or "latest"

    def pinned(self, digest: str) -> str:
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Raises ReferenceInvalid. A text without a registry's host is refused: none is assumed."""
    rest, digest = _split_digest(text)
    if rest.startswith(LAYOUT_PREFIX):
        return _layout(text, rest.removeprefix(LAYOUT_PREFIX), digest)
    scheme, _, remote = rest.rpartition("://")
    host, slash, path = remote.partition("/")
    repository, _, tag = path.partition(":")
    if scheme not in ("", "http", "https") or not slash or not _is_host(host, scheme):
        raise ReferenceInvalid(
            f"{text!r} names no registry; use HOST/REPOSITORY:TAG such as registry.example.com/models/router:v1, "
            "or oci:FOLDER:TAG for a layout folder"
        )
    if not REPOSITORY.fullmatch(repository):
        raise ReferenceInvalid(
            f"{repository!r} is no repository name; use lower-case path components such as models/router"
        )
    check_tag(tag if ":" in path else None)
    return Reference(host, repository, "", tag or None, digest, scheme)


def check_tag(tag: str | None) -> None:
    """Raises ReferenceInvalid for what no registry takes as a tag."""
    if tag is not None and not TAG.fullmatch(tag):
        raise ReferenceInvalid(f"{tag!r} is no tag; use 1 to 128 of the characters A-Z a-z 0-9 _ . -, no . or - first")


def _split_digest(text: str) -> tuple[str, str | None]:
    rest, at, digest = text.rpartition("@")
    if not at:
        return text, None
    if not DIGEST.fullmatch(digest):
        raise ReferenceInvalid(f"{digest!r} is no digest; sha256: and 64 hexadecimal digits are required")
    return rest, digest


def _layout(text: str, rest: str, digest: str | None) -> Reference:
    match = _LAYOUT_TAG.fullmatch(rest)
    folder, tag = (match[1], match[2]) if match else (rest, None)
    if not folder or "\0" in folder:
        raise ReferenceInvalid(f"{text!r} names no folder; use oci:FOLDER:TAG")
    return Reference("", "", str(Path(folder)), tag, digest)


def _is_host(host: str, scheme: str) -> bool:
    """As Docker tells a registry from a path: it has a dot or a port, or is localhost; with a scheme any name will do."""
    if not _HOST.fullmatch(host):
        return False
    return bool(scheme) or host == "localhost" or any(sign in host for sign in ".:")
