"""One blob's way into a registry (distribution-spec, "Pushing a blob in chunks" and "monolithically").

A small blob goes in one PUT. A larger one goes in a PATCH that can be taken up where it broke: the registry says how
much it has, and the rest follows. A registry that takes no PATCH gets it in one PUT.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin

from serving.modelcar.document import RegistryFailed
from serving.modelcar.transport import Answer, Body

if TYPE_CHECKING:
    from collections.abc import Mapping

RESUMABLE_BYTES = 8 << 20  # a smaller blob is sent again from its start
_SLOWEST_CHECK = 20 << 20  # bytes a second that a registry is given to check a blob in when it is complete
_OCTETS = {"Content-Type": "application/octet-stream"}
_NO_PATCH = frozenset({400, 404, 405, 411, 413, 415, 416, 501})


class Repository(Protocol):
    """What an upload needs of the registry client."""

    @property
    def timeout_seconds(self) -> float: ...

    def has_blob(self, digest: str, size: int) -> bool: ...

    def once(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Body | None = None,
        patience_seconds: float | None = None,
    ) -> Answer: ...


class Upload:
    """`attempt` is called until it succeeds; between calls it remembers the open session and what the registry has."""

    def __init__(
        self,
        repository: Repository,
        digest: str,
        size: int,
        blocks: Callable[[], Iterator[bytes]],
        report: Callable[[int], None],
    ) -> None:
        self._repository = repository
        self._digest = digest
        self._size = size
        self._blocks = blocks
        self._report = report
        self._patchable = size >= RESUMABLE_BYTES
        self._location: str | None = None
        self._tried = False

    def attempt(self) -> Answer:
        """The answer to the request that ended the attempt: 201 when the registry has the blob."""
        if self._tried and self._repository.has_blob(self._digest, self._size):
            return Answer(201, {}, b"", "")  # the blob arrived, its answer did not
        offset = self._resume() if self._tried else 0
        self._tried = True
        if self._location is None:
            opened = self._repository.once("POST", "blobs/uploads/", {})
            if opened.status != 202:
                return opened
            self._location, offset = _location(opened), 0
        return self._patch_and_commit(offset) if self._patchable else self._put()

    def _resume(self) -> int:
        """How many bytes the open session holds; forgets a session that is gone or cannot go on."""
        if self._location is None or not self._patchable:
            self._location = None
            return 0
        status = self._repository.once("GET", self._location, {})
        held = _held(status.headers) if status.status == 204 else None
        if held is None or held > self._size:
            self._location = None
            return 0
        self._location = _location(status, self._location)
        return held

    def _put(self) -> Answer:
        location, self._location = str(self._location), None
        return self._repository.once(
            "PUT", _with_digest(location, self._digest), _OCTETS, self._body(0), self._check_seconds()
        )

    def _patch_and_commit(self, offset: int) -> Answer:
        if offset < self._size:
            span = {"Content-Range": f"{offset}-{self._size - 1}"}
            sent = self._repository.once("PATCH", str(self._location), _OCTETS | span, self._body(offset))
            if sent.status in _NO_PATCH:
                return self._without_patch()
            if sent.status != 202:
                return sent
            self._location = _location(sent, self._location)
        answer = self._repository.once(
            "PUT", _with_digest(str(self._location), self._digest), {}, None, self._check_seconds()
        )
        if answer.status in (400, 404, 416) and offset:
            return self._without_patch()  # what the session held was not a beginning of this blob
        return answer

    def _without_patch(self) -> Answer:
        self._patchable, self._location = False, None
        opened = self._repository.once("POST", "blobs/uploads/", {})
        if opened.status != 202:
            return opened
        self._location = _location(opened)
        return self._put()

    def _body(self, offset: int) -> Body:
        return Body(self._size - offset, lambda: self._reported(offset))

    def _reported(self, offset: int) -> Iterator[bytes]:
        position = 0
        for block in self._blocks():
            end = position + len(block)
            if end > offset:
                yield block[max(0, offset - position) :]
                self._report(end)
            position = end

    def _check_seconds(self) -> float:
        return self._repository.timeout_seconds + self._size / _SLOWEST_CHECK


def _location(answer: Answer, previous: str | None = None) -> str:
    location = answer.headers.get("location")
    if not location and previous is None:
        raise RegistryFailed(
            f"{answer.url} opened an upload without a Location header; the registry breaks the OCI spec"
        )
    return urljoin(answer.url, location) if location else str(previous)


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _held(headers: "Mapping[str, str]") -> int | None:
    """From `Range: 0-<last>`; None where it is unclear: registries send 0-0 for none as for one byte."""
    first, _, last = headers.get("range", "").removeprefix("bytes=").partition("-")
    return int(last) + 1 if first == "0" and last.isdecimal() and last != "0" else None
