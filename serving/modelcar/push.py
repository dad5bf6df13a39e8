"""Pushes an image from a layout folder to a registry (OCI distribution-spec, "Pushing Blobs" and "Pushing Manifests").

A blob that the registry has is not sent again. Each other blob goes in one streamed request; one that fails starts
again from its first byte. Authentication is the client's: a registry that answers 401 or 403 is a final failure.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from serving.modelcar import blobs
from serving.modelcar.image import MANIFEST_TYPE, sha256_digest
from serving.modelcar.layout import MAX_MANIFEST_BYTES, blob_refs, read_manifest
from serving.modelcar.model import LayerRef, PushResult

MAX_ATTEMPTS = 4
BACKOFF_SECONDS = 1.0  # doubles after each attempt
MAX_RETRY_AFTER_SECONDS = 60.0
# distribution-spec, "Pulling manifests".
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class PushFailed(RuntimeError):
    """The registry did not take the image, after the retries that could help. Blobs it took are not sent again."""


def push(
    layout: Path,
    digest: str,
    registry: str,
    repository: str,
    tag: str | None,
    *,
    client: httpx.Client,
    progress: Callable[[int, int], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> PushResult:
    """Sends the image's blobs, then its manifest by digest and, where there is a tag, by tag.

    `registry` is a base URL such as http://127.0.0.1:5055; the client's read timeout must cover the time in which the
    registry checks the largest layer. `progress` gets (bytes the registry has, bytes of all blobs); the first number
    falls back when a blob is sent again. Connection errors, 429 and 5xx are tried up to MAX_ATTEMPTS times.
    Raises PushFailed, DigestMismatch (a local blob is damaged), LayoutInvalid.
    """
    _check_names(registry, repository, tag)
    manifest = read_manifest(layout, digest)
    refs = tuple({ref.digest: ref for ref in blob_refs(manifest)}.values())
    target = _Target(f"{registry.rstrip('/')}/v2/{repository}", client, sleep)
    missing = tuple(ref for ref in refs if not _present(target, ref))
    total = sum(ref.size for ref in refs)
    done = total - sum(ref.size for ref in missing)
    report = _Report(progress, total)
    report(done)
    for ref in missing:
        _send_blob(target, layout, ref, partial(report, done))
        done += ref.size
    document = blobs.read_blob(layout, digest, MAX_MANIFEST_BYTES)
    for reference in (digest, *([tag] if tag else [])):
        _send_manifest(target, reference, document, manifest.get("mediaType", MANIFEST_TYPE), digest)
    return PushResult(sum(ref.size for ref in missing), len(missing), len(refs) - len(missing))


@dataclass(frozen=True)
class _Report:
    progress: Callable[[int, int], None] | None
    total: int

    def __call__(self, done: int, sent: int = 0) -> None:
        if self.progress:
            self.progress(done + sent, self.total)


@dataclass(frozen=True)
class _Target:
    """A repository's base URL and how to talk to it."""

    url: str
    client: httpx.Client
    sleep: Callable[[float], None]

    def ask(self, what: str, attempt: Callable[[], httpx.Response], good: frozenset[int]) -> httpx.Response:
        """Runs `attempt` until it gives a status in `good`. Raises PushFailed on the first answer that is final."""
        for number in range(1, MAX_ATTEMPTS + 1):
            delay = BACKOFF_SECONDS * 2 ** (number - 1)
            try:
                response = attempt()
            except httpx.RequestError as error:
                observed = f"{type(error).__name__}: {error}"
            else:
                if response.status_code in good:
                    return response
                observed = _describe(response)
                if response.status_code != 429 and response.status_code < 500:
                    raise PushFailed(f"{what} at {self.url}: {observed}; {_advice(response.status_code)}")
                delay = max(delay, _retry_after(response))
            if number < MAX_ATTEMPTS:
                self.sleep(delay)
        raise PushFailed(
            f"{what} at {self.url}: {observed}, {MAX_ATTEMPTS} times; see that the registry runs, push again"
        )


def _check_names(registry: str, repository: str, tag: str | None) -> None:
    if urlsplit(registry).scheme not in ("http", "https") or not urlsplit(registry).netloc:
        raise PushFailed(f"{registry!r} is no registry address; use a base URL such as https://registry.example.com")
    if not _REPOSITORY.fullmatch(repository):
        raise PushFailed(f"{repository!r} is no repository name; use lower-case path components such as models/router")
    if tag is not None and not _TAG.fullmatch(tag):
        raise PushFailed(f"{tag!r} is no tag; use 1 to 128 of the characters A-Z a-z 0-9 _ . -, no . or - first")


def _present(target: _Target, ref: LayerRef) -> bool:
    url = f"{target.url}/blobs/{ref.digest}"
    # Registries in front of an object store redirect reads of blobs.
    response = target.ask(
        f"asking for blob {ref.digest}",
        lambda: target.client.head(url, follow_redirects=True),
        frozenset({200, 404}),
    )
    if response.status_code == 200:
        _check_digest(response, ref.digest, f"blob {ref.digest}")
    return response.status_code == 200


def _send_blob(target: _Target, layout: Path, ref: LayerRef, report: Callable[[int], None]) -> None:
    def attempt() -> httpx.Response:
        opened = target.client.post(f"{target.url}/blobs/uploads/", headers={"Content-Length": "0"})
        if opened.status_code != 202:
            return opened
        return target.client.put(
            _upload_url(opened, ref.digest),
            content=_counted(blobs.stream_blob(layout, ref.digest, ref.size), report),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(ref.size)},
        )

    response = target.ask(f"sending blob {ref.digest}", attempt, frozenset({201}))
    _check_digest(response, ref.digest, f"blob {ref.digest}")


def _upload_url(opened: httpx.Response, digest: str) -> str:
    location = opened.headers.get("Location")
    if not location:
        raise PushFailed(f"{opened.url} opened an upload without a Location header; the registry breaks the OCI spec")
    url = urljoin(str(opened.url), location)
    return f"{url}{'&' if '?' in url else '?'}digest={digest}"


def _counted(blocks: Iterator[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    for block in blocks:
        yield block
        sent += len(block)
        report(sent)


def _send_manifest(target: _Target, reference: str, document: bytes, media_type: str, digest: str) -> None:
    url = f"{target.url}/manifests/{reference}"
    response = target.ask(
        f"sending manifest {reference}",
        lambda: target.client.put(url, content=document, headers={"Content-Type": media_type}),
        frozenset({201}),
    )
    if "Docker-Content-Digest" in response.headers:
        _check_digest(response, digest, f"manifest {reference}")
        return
    read = target.ask(
        f"reading manifest {reference}",
        lambda: target.client.get(url, headers={"Accept": media_type}),
        frozenset({200}),
    )
    _check_same(sha256_digest(read.content), digest, f"manifest {reference}", target.url)


def _check_digest(response: httpx.Response, digest: str, what: str) -> None:
    """The header is optional in the spec; a registry that sends another digest stored other bytes."""
    _check_same(response.headers.get("Docker-Content-Digest", digest), digest, what, str(response.url))


def _check_same(observed: str, digest: str, what: str, where: str) -> None:
    if observed != digest:
        raise PushFailed(
            f"{where} stored {what} as {observed}, not {digest}; something between here and there changes the bytes; "
            "do not use the image"
        )


def _describe(response: httpx.Response) -> str:
    body = " ".join(response.text[:300].split())
    return f"status {response.status_code}{': ' + body if body else ''}"


def _advice(status: int) -> str:
    if status in (401, 403):
        return "give the client credentials that may push to this repository"
    return "the registry refuses the request, so sending it again will not help"


def _retry_after(response: httpx.Response) -> float:
    """Seconds the registry asks for; 0 where it names none or a date."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_AFTER_SECONDS) if value.isdecimal() else 0.0
