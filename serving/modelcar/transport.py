"""HTTP with connections that are kept, bodies that are streamed both ways, and nothing held in memory.

Python's http.client, because it reads straight into a buffer that is used again: at the rates of a loopback or a fast
network this is half of the cost of a download. No retries, no authentication, no cookies and no proxies here.
"""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_BODY_BYTES = 8 << 20
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USER_AGENT = "liftlock"


@dataclass(frozen=True)
class Body:
    """`size` bytes from `blocks()`, which may be called again."""

    size: int
    blocks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Answer:
    """A whole response; header names are in lower case, `url` is the one that answered after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Transport:
    """Shared by threads: a connection serves one request at a time and goes back to the pool after it."""

    def __init__(self, timeout_seconds: float, ca_file: Path | None) -> None:
        """Raises OSError where `ca_file` cannot be read or holds no certificates."""
        self._timeout = timeout_seconds
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}

    def close(self) -> None:
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        patience_seconds: float | None = None,
    ) -> Answer:
        """One request; its answer is read whole. Reads of blobs may be redirected to another host, which does not get
        the Authorization header. `patience_seconds` is how long the answer may take, where it is not the usual time.

        Raises OSError, http.client.HTTPException.
        """
        with self.open(method, url, headers, body, patience_seconds) as (response, final):
            data = response.read(MAX_BODY_BYTES + 1)
            if len(data) > MAX_BODY_BYTES:
                raise http.client.HTTPException(f"{final} answered with more than {MAX_BODY_BYTES} bytes")
            return Answer(response.status, _lowered(response), data, final)

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        patience_seconds: float | None = None,
    ) -> Iterator[tuple[http.client.HTTPResponse, str]]:
        """The response to read from, and the address that gave it."""
        for _ in range(MAX_REDIRECTS + 1):
            connection, response = self._exchange(method, urlsplit(url), headers, body, patience_seconds)
            location = response.headers.get("Location")
            if method in ("GET", "HEAD") and response.status in _REDIRECTS and location:
                self._settle(connection, response, urlsplit(url))
                target = urljoin(url, location)
                headers = _for_host(headers, urlsplit(url), urlsplit(target))
                url = target
                continue
            finished = False
            try:
                yield response, url
                finished = True
            finally:
                if finished:
                    self._settle(connection, response, urlsplit(url))
                else:
                    connection.close()
            return
        raise http.client.HTTPException(f"more than {MAX_REDIRECTS} redirects, the last to {url}")

    def _exchange(
        self,
        method: str,
        url: SplitResult,
        headers: Mapping[str, str],
        body: Body | None,
        patience_seconds: float | None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A kept connection may have been closed by the other side: then a new one is tried at once."""
        while True:
            connection, kept = self._take(url)
            response = None
            try:
                _write(connection, method, url, headers, body)
                _set_timeout(connection, patience_seconds or self._timeout)
                response = connection.getresponse()
                _set_timeout(connection, self._timeout)
                return connection, response
            except ConnectionError:
                if not kept or body is not None:  # a body may have arrived in part: the caller must look first
                    raise
            finally:
                if response is None:
                    connection.close()

    def _take(self, url: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get((url.scheme, url.netloc))
            if idle:
                return idle.pop(), True
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.netloc, timeout=self._timeout, context=self._tls), False
        if url.scheme == "http":
            return http.client.HTTPConnection(url.netloc, timeout=self._timeout), False
        raise http.client.HTTPException(f"{url.geturl()} is neither http nor https")

    def _settle(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, url: SplitResult
    ) -> None:
        """Keeps the connection where the whole answer has been read."""
        if not response.isclosed() and response.length is not None and response.length <= 1 << 16:
            response.read()
        if not response.isclosed() or connection.sock is None:
            connection.close()
            return
        with self._lock:
            self._idle.setdefault((url.scheme, url.netloc), []).append(connection)


def _write(
    connection: http.client.HTTPConnection, method: str, url: SplitResult, headers: Mapping[str, str], body: Body | None
) -> None:
    connection.putrequest(method, (url.path or "/") + (f"?{url.query}" if url.query else ""), skip_accept_encoding=True)
    for name, value in {"User-Agent": _USER_AGENT, **headers}.items():
        connection.putheader(name, value)
    if body is not None or method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(body.size if body else 0))
    connection.endheaders()
    if body is None:
        return
    # A server that refuses may answer and close before it has read the body: its answer says more than the break.
    with suppress(BrokenPipeError, ConnectionResetError):
        for block in body.blocks():
            connection.send(block)


def _set_timeout(connection: http.client.HTTPConnection, seconds: float) -> None:
    if connection.sock is not None:  # absent where the server closes after this answer
        connection.sock.settimeout(seconds)


def _lowered(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _for_host(headers: Mapping[str, str], old: SplitResult, new: SplitResult) -> Mapping[str, str]:
    if (old.scheme, old.netloc) == (new.scheme, new.netloc):
        return headers
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}
