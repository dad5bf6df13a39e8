"""One blob's way out of a registry: streamed through one buffer, hashed as it passes, taken up where it broke."""

import hashlib
import http.client
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from serving.modelcar.blobs import CHUNK, DigestMismatch
from serving.modelcar.document import RegistryFailed
from serving.modelcar.retry import MAX_ATTEMPTS, Patience
from serving.modelcar.transport import Answer

Opened = tuple[http.client.HTTPResponse, str]


class Repository(Protocol):
    """What a download needs of the registry client."""

    name: str
    url: str

    def open_blob(self, digest: str, start: int) -> AbstractContextManager[Opened]: ...

    def renew(self, answer: Answer) -> bool: ...


def blob_blocks(repository: Repository, patience: Patience, digest: str, size: int) -> Iterator[memoryview]:
    """`size` bytes in blocks of at most CHUNK, each valid until the next. Raises DigestMismatch, RegistryFailed."""
    hasher = hashlib.sha256()
    for block in _resumed(repository, patience, digest, size):
        hasher.update(block)
        yield block
    observed = f"sha256:{hasher.hexdigest()}"
    if observed != digest:
        raise DigestMismatch(
            f"{repository.name} sent {observed} as blob {digest}; the bytes are wrong; do not use them"
        )


def _resumed(repository: Repository, patience: Patience, digest: str, size: int) -> Iterator[memoryview]:
    """Goes on at the byte where a connection broke; gives up after MAX_ATTEMPTS breaks without a byte between them."""
    done = breaks = 0
    while done < size:
        before = done
        try:
            with repository.open_blob(digest, done) as opened:
                response = opened[0]
                if _ready(repository, digest, done, response, opened[1]):
                    for block in _read(response, size - done):
                        done += len(block)
                        yield block
                observed = f"the connection ended at byte {done} of {size}"
        except (OSError, http.client.HTTPException) as error:
            observed = f"{type(error).__name__}: {error}"
        breaks = breaks + 1 if done == before else 1
        if done < size:
            if breaks >= MAX_ATTEMPTS:
                raise RegistryFailed(f"reading blob {digest} at {repository.url}: {observed}; try again later")
            patience.sleep(2.0 ** (breaks - 1))


def _ready(repository: Repository, digest: str, start: int, response: http.client.HTTPResponse, url: str) -> bool:
    """Whether the blob's bytes from `start` follow. False where another attempt is worth it."""
    if response.status == (206 if start else 200):
        return True
    if response.status == 200:  # the registry cannot begin in the middle
        for _ in _read(response, start):
            pass
        return True
    answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read(1000), url)
    if response.status == 401 and repository.renew(answer):
        return False
    if response.status == 429 or response.status >= 500:
        raise http.client.HTTPException(f"status {response.status}")
    if response.status == 404:
        raise DigestMismatch(f"blob {digest} is absent from {repository.name}; push the image again")
    raise RegistryFailed(
        f"reading blob {digest} at {repository.url}: status {response.status}; sending again is useless"
    )


def _read(response: http.client.HTTPResponse, length: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(CHUNK, max(length, 1))))
    while length:
        count = response.readinto(buffer[:length])
        if not count:
            return
        length -= count
        yield buffer[:count]
