"""A blob that broke on its way goes on where it stopped, at a registry that keeps a broken session as the spec lets it.

docker-registry gives such a session up, so the server here is a small one of its own: upload sessions in memory, and a
connection that ends after as many bytes of a PATCH as the test says.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from serving.modelcar import Access, RegistryFailed, parse_reference
from serving.modelcar.registry import Registry
from serving.modelcar.upload import RESUMABLE_BYTES

DATA = os.urandom(RESUMABLE_BYTES + 100_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@dataclass
class Sessions:
    """`breaks` are the bytes of each PATCH after which the connection ends; `forgets` says whether a session is lost then,
    `unclear` that its length is told as 0-0, `garbles` that what it holds is wrong, `refuses` that there is no PATCH.
    """

    url: str = ""
    breaks: list[int] = field(default_factory=list)
    forgets: bool = False
    unclear: bool = False
    garbles: bool = False
    refuses: bool = False
    open: dict[str, bytearray] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    received: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    state: Sessions

    def do_HEAD(self) -> None:
        blob = self.state.blobs.get(self.path.rsplit("/", 1)[1])
        self.say(404 if blob is None else 200)

    def do_POST(self) -> None:
        name = f"s{len(self.state.open)}"
        self.state.open[name] = bytearray()
        self.say(202, Location=f"/v2/models/x/blobs/uploads/{name}")

    def do_GET(self) -> None:
        session = self.state.open.get(self.path.rsplit("/", 1)[1])
        if session is None:
            return self.say(404)
        return self.say(204, Location=self.path, Range="0-0" if self.state.unclear else f"0-{len(session) - 1}")

    def do_PATCH(self) -> None:
        name, length = self.path.rsplit("/", 1)[1], int(self.headers["Content-Length"])
        session = self.state.open[name]
        if self.state.refuses:
            self.rfile.read(length)
            return self.say(405)
        start, end = map(int, re.fullmatch(r"(\d+)-(\d+)", self.headers["Content-Range"]).groups())  # type: ignore[union-attr]
        allowed = self.state.breaks.pop(0) if self.state.breaks else length
        taken = self.rfile.read(min(allowed, length))
        self.state.received += len(taken)
        assert (start, end - start + 1) == (len(session), length)
        session += bytes(len(taken)) if self.state.garbles and taken and allowed < length else taken
        if allowed < length:
            if self.state.forgets:
                del self.state.open[name]
            self.close_connection = True
            return None
        return self.say(202, Location=self.path, Range=f"0-{len(session) - 1}")

    def do_PUT(self) -> None:
        path, digest = self.path.split("?digest=")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.received += len(body)
        data = bytes(self.state.open.pop(path.rsplit("/", 1)[1])) + body
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return self.say(400)
        self.state.blobs[digest] = data
        return self.say(201)

    def say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    state = Sessions()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/models/x"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(sessions: Sessions) -> list[int]:
    """What was reported on the way."""
    told: list[int] = []
    with Registry(parse_reference(sessions.url), Access(timeout_seconds=5), lambda seconds: None) as registry:
        registry.put_stream(
            DIGEST, len(DATA), lambda: (DATA[at : at + 65536] for at in range(0, len(DATA), 65536)), told.append
        )
    return told


@pytest.mark.parametrize("breaks", [[1 << 20], [5_000_001, 12_345], [7 << 20, 65_537, 100]])
def test_what_arrived_is_not_sent_again(sessions: Sessions, breaks: list[int]) -> None:
    sessions.breaks = list(breaks)
    told = send(sessions)
    assert sessions.blobs == {DIGEST: DATA}
    assert sessions.received == len(DATA)
    assert told[-1] == len(DATA)


@pytest.mark.parametrize("trouble", ["forgets", "unclear", "garbles"])
def test_a_session_that_cannot_go_on_begins_again(sessions: Sessions, trouble: str) -> None:
    setattr(sessions, trouble, True)
    sessions.breaks = [3 << 20]
    send(sessions)
    assert sessions.blobs == {DIGEST: DATA}
    assert sessions.received > len(DATA)


def test_a_registry_without_patch_gets_one_put(sessions: Sessions) -> None:
    sessions.refuses = True
    send(sessions)
    assert sessions.blobs == {DIGEST: DATA}
    assert sessions.received == len(DATA)


def test_a_session_that_never_ends_is_given_up(sessions: Sessions) -> None:
    sessions.breaks = [100] * 9
    with pytest.raises(RegistryFailed, match="4 times"):
        send(sessions)
    assert sessions.blobs == {}
    assert sessions.received == 400
