"""A client of one repository of an OCI registry (distribution-spec 1.1): manifests and blobs, by digest or tag.

Every byte that is read is judged by its digest. What passes is tried again (retry.py); a blob whose transfer broke goes
on where it stopped, where the registry can. Uploads are in upload.py.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

from serving.modelcar.authorise import Authoriser
from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.credentials import CredentialsInvalid, read_credentials
from serving.modelcar.document import MAX_MANIFEST_BYTES, Access, Document, ImageMissing, RegistryFailed, document_of
from serving.modelcar.download import Opened, blob_blocks
from serving.modelcar.image import sha256_digest
from serving.modelcar.reference import DIGEST, Reference, check_tag
from serving.modelcar.retry import Patience
from serving.modelcar.transport import Answer, Body, Transport
from serving.modelcar.upload import Upload

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")


class Registry:
    """Shared by threads. Its methods raise RegistryFailed; those that read bytes raise DigestMismatch too."""

    def __init__(self, reference: Reference, access: Access, sleep: Callable[[float], None] = time.sleep) -> None:
        """Nothing is sent yet. Raises CredentialsInvalid, also for a `ca_file` that holds no certificates."""
        host = _DOCKER_HUB[1] if reference.host == _DOCKER_HUB[0] else reference.host
        self.name = reference.name
        self.repository = reference.repository
        self.url = f"{_scheme(reference, access)}://{host}/v2/{reference.repository}"
        try:
            self._transport = Transport(access.timeout_seconds, access.ca_file)
        except OSError as error:
            raise CredentialsInvalid(
                f"{access.ca_file} cannot be used as authorities ({error}); name a PEM file of certificates"
            ) from error
        self._authoriser = Authoriser(self._transport, read_credentials(access.auth_file, reference.host))
        self._patience = Patience(sleep)
        self.timeout_seconds = access.timeout_seconds

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def find_manifest(self, reference: str) -> Document | None:
        """By tag or digest; None where there is none. Raises DigestMismatch where the bytes are not the digest's."""
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}
        answer = self.ask("GET", f"manifests/{reference}", f"reading manifest {reference}", {200, 404}, accept)
        if answer.status == 404:
            return None
        if len(answer.body) > MAX_MANIFEST_BYTES:
            raise RegistryFailed(f"manifest {reference} of {self.name} has over {MAX_MANIFEST_BYTES} bytes; none has")
        document = document_of(answer.body, answer.headers.get("content-type", ""))
        expected = reference if DIGEST.fullmatch(reference) else answer.headers.get("docker-content-digest")
        if expected not in (None, document.digest):
            raise DigestMismatch(
                f"{self.url} sent {document.digest} as manifest {expected}; something changes the bytes; do not use it"
            )
        return document

    def get_manifest(self, reference: str) -> Document:
        """Raises ImageMissing."""
        document = self.find_manifest(reference)
        if document is None:
            raise ImageMissing(f"{self.name} has no manifest {reference}; name one that was pushed there")
        return document

    def put_manifest(self, data: bytes, tag: str | None) -> str:
        """By digest first, then by tag: a tag never names what the registry refused. Returns the digest."""
        check_tag(tag)
        document = document_of(data)
        for reference in (document.digest, *([tag] if tag else [])):
            answer = self.ask(
                "PUT",
                f"manifests/{reference}",
                f"sending manifest {reference}",
                {200, 201},
                {"Content-Type": document.media_type},
                Body(len(data), lambda: iter((data,))),
            )
            self._check_stored(answer, reference, document)
        return document.digest

    def has_blob(self, digest: str, size: int) -> bool:
        """By HEAD: the registry's word for it, with the size where it says one."""
        answer = self.ask("HEAD", f"blobs/{digest}", f"asking for blob {digest}", {200, 404})
        if answer.status == 404:
            return False
        self._check_same(answer.headers.get("docker-content-digest", digest), digest, f"blob {digest}")
        return int(answer.headers.get("content-length", size)) == size

    def get_blob(self, digest: str, limit: int) -> bytes:
        """A small blob. Raises DigestMismatch, also where it is absent or larger than `limit` bytes."""
        answer = self.ask("GET", f"blobs/{digest}", f"reading blob {digest}", {200, 404})
        if answer.status == 404 or len(answer.body) > limit:
            raise DigestMismatch(
                f"blob {digest} is absent from {self.name} or over {limit} bytes; push the image again"
            )
        self._check_same(sha256_digest(answer.body), digest, f"blob {digest}")
        return answer.body

    def put_blob(self, data: bytes) -> str:
        """A small blob, unless the registry has it. Returns its digest."""
        digest = sha256_digest(data)
        if not self.has_blob(digest, len(data)):
            self.put_stream(digest, len(data), lambda: iter((data,)))
        return digest

    def put_stream(
        self,
        digest: str,
        size: int,
        blocks: Callable[[], Iterator[bytes]],
        report: Callable[[int], None] = lambda sent: None,
    ) -> None:
        """Sends a blob that the registry lacks. `blocks` may be called again after a broken transfer; `report` gets how
        many of its bytes have been sent, a number that falls when some must be sent again.
        """
        upload = Upload(self, digest, size, blocks, report)
        answer = self._patience.ask(f"sending blob {digest}", self.url, upload.attempt, frozenset({200, 201}))
        self._check_same(answer.headers.get("docker-content-digest", digest), digest, f"blob {digest}")

    def blob_blocks(self, digest: str, size: int) -> Iterator[memoryview]:
        """The blob in blocks that are valid until the next one. Raises DigestMismatch, for wrong content at the end."""
        return blob_blocks(self, self._patience, digest, size)

    def mount(self, digest: str, other_repository: str) -> bool:
        """Takes the blob over from another repository of the registry, without sending it; False where it cannot."""
        if other_repository == self.repository:
            return False
        scopes = (f"repository:{other_repository}:pull",)
        answer = self._patience.ask(
            f"mounting blob {digest}",
            self.url,
            lambda: self.once("POST", f"blobs/uploads/?mount={digest}&from={other_repository}", {}, None, None, scopes),
            frozenset({201, 202, 401, 403, 404, 405}),
        )
        if answer.status == 202 and "location" in answer.headers:  # an upload was opened instead; nobody will use it
            with suppress(OSError, http.client.HTTPException):
                self.once("DELETE", urljoin(answer.url, answer.headers["location"]), {})
        return answer.status == 201

    def tags(self) -> tuple[str, ...]:
        document = self.request_json("tags/list")
        return tuple(sorted((document or {}).get("tags") or ()))

    def request_json(self, path: str) -> dict[str, Any] | None:
        """A document below the repository's address, such as `referrers/sha256:…`; None on 404."""
        answer = self.ask("GET", path, f"reading {path}", {200, 404})
        if answer.status == 404:
            return None
        try:
            value = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise RegistryFailed(f"{self.url}/{path} is not JSON ({error}); see that this is a registry") from error
        return value if isinstance(value, dict) else None

    def ask(
        self,
        method: str,
        path: str,
        what: str,
        good: set[int],
        headers: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        """With retries, until the status is in `good`."""
        return self._patience.ask(what, self.url, lambda: self.once(method, path, headers or {}, body), frozenset(good))

    def once(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Body | None = None,
        patience_seconds: float | None = None,
        scopes: tuple[str, ...] = (),
    ) -> Answer:
        """One request to an address or a path below the repository, with the authorisation that it asks for.

        Raises OSError, http.client.HTTPException.
        """
        url = path if "://" in path else f"{self.url}/{path}"
        if not self._is_ours(url):
            return self._transport.send(method, url, headers, body, patience_seconds)
        purpose, own = self._purpose(method, scopes)
        sent = headers | self._authoriser.headers(purpose)
        answer = self._transport.send(method, url, sent, body, patience_seconds)
        if answer.status == 401 and self._authoriser.accept(purpose, own, answer, sent):
            sent = headers | self._authoriser.headers(purpose)
            answer = self._transport.send(method, url, sent, body, patience_seconds)
        return answer

    def open_blob(self, digest: str, start: int) -> AbstractContextManager[Opened]:
        """A context manager over (response, address), from byte `start` where the registry can. See Transport.open."""
        headers = self._authoriser.headers("pull") | ({"Range": f"bytes={start}-"} if start else {})
        return self._transport.open("GET", f"{self.url}/blobs/{digest}", headers)

    def renew(self, answer: Answer) -> bool:
        """Whether a 401 to a read can be answered."""
        purpose, own = self._purpose("GET", ())
        return self._authoriser.accept(purpose, own, answer, self._authoriser.headers(purpose))

    def _purpose(self, method: str, scopes: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        own = (f"repository:{self.repository}:{actions}", *scopes)
        return " ".join((actions, *scopes)), own

    def _is_ours(self, url: str) -> bool:
        """Only the registry's own host gets our credentials."""
        mine, other = urlsplit(self.url), urlsplit(url)
        return (mine.scheme, mine.netloc) == (other.scheme, other.netloc)

    def _check_stored(self, answer: Answer, reference: str, document: Document) -> None:
        stored = answer.headers.get("docker-content-digest")
        if stored is None:
            stored = self.get_manifest(reference).digest
        self._check_same(stored, document.digest, f"manifest {reference}")

    def _check_same(self, observed: str, digest: str, what: str) -> None:
        """The header is optional in the spec; a registry that sends another digest stored other bytes."""
        if observed != digest:
            raise RegistryFailed(
                f"{self.url} stored {what} as {observed}, not {digest}; something between here and there changes the "
                "bytes; do not use the image"
            )


def _scheme(reference: Reference, access: Access) -> str:
    if reference.scheme:
        return reference.scheme
    loopback = (urlsplit(f"//{reference.host}").hostname or "") in ("localhost", "::1") or reference.host.startswith(
        "127."
    )
    return "http" if access.plain_http or (loopback and access.ca_file is None) else "https"
