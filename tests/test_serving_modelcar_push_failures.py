"""A push to a registry that fails, drops connections or lies: what is tried again, and what is said in the end."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.modelcar import Access, DigestMismatch, PushResult, RegistryFailed, copy_image, parse_reference
from serving.modelcar.layout_store import LayoutStore
from serving.modelcar.registry import Registry
from tests.fix_modelcar import build

Answer = int | str | tuple[int, dict[str, str]]


@dataclass
class Failing:
    """A registry that stores nothing. Each request takes the next answer of its kind, the good one when none is left.

    `script` maps a kind of request (HEAD, POST, PUT blob, PUT manifest, GET) to the answers to give first.
    """

    url: str = ""
    script: dict[str, list[Answer]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would each wait for the client's delayed acknowledgement
    failing: Failing

    def answer(self) -> None:
        kind = self.command
        if kind == "PUT":
            kind = "PUT blob" if "/blobs/" in self.path else "PUT manifest"
        self.failing.log.append(kind)
        answers = self.failing.script.get(kind, [])
        planned = answers.pop(0) if answers else {"HEAD": 404, "POST": 202, "GET": 200}.get(kind, 201)
        length = int(self.headers.get("Content-Length", 0))
        if planned == "drop":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(length)
        if kind.startswith("PUT"):
            self.failing.bodies.append(body)
        status, headers = planned if isinstance(planned, tuple) else (int(planned), {})
        if kind == "POST":
            headers = {"Location": f"{self.path}upload?state=a%3D"} | headers
        elif kind.startswith("PUT") and status == 201 and not headers:
            headers = {"Docker-Content-Digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}
        self.reply(status, headers, b"" if kind == "HEAD" else b'{"errors": "said here"}')

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_GET = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def failing() -> Iterator[Failing]:
    state = Failing()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"failing": state}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds between looks at shutdown
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attempt(root: Path, url: str, sleeps: list[float]) -> PushResult:
    layout, image = build(root)
    return send(layout, image.digest, url, sleeps)


def send(layout: Path, digest: str, url: str, sleeps: list[float]) -> PushResult:
    """One blob at a time, so that the order of the requests is known."""
    source = LayoutStore(parse_reference(f"oci:{layout}"))
    with Registry(parse_reference(f"{url}/models/x"), Access(timeout_seconds=30), sleeps.append) as target:
        return copy_image(source, digest, target, "v1", streams=1)


@pytest.mark.parametrize("kind", ["HEAD", "POST", "PUT blob", "PUT manifest"])
@pytest.mark.parametrize("trouble", [[503, 503], ["drop", 500], [429, "drop"]])
def test_trouble_that_passes_is_waited_out(tmp_path: Path, failing: Failing, kind: str, trouble: list[Answer]) -> None:
    failing.script = {kind: list(trouble)}
    sleeps: list[float] = []
    result = attempt(tmp_path, failing.url, sleeps)
    assert sleeps in ([1.0], [1.0, 2.0])  # a kept connection that was dropped is replaced at once, without a wait
    assert result.blobs_sent == 5
    stored = {hashlib.sha256(body).hexdigest() for body in failing.bodies}
    assert stored == {path.name for path in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}
    assert failing.log[-2:] == ["PUT manifest", "PUT manifest"]


@pytest.mark.parametrize("kind", ["HEAD", "POST", "PUT blob", "PUT manifest"])
@pytest.mark.parametrize(("answer", "words"), [(503, "status 503"), ("drop", "Remote|Reset")])
def test_trouble_that_stays_fails_after_four_attempts(
    tmp_path: Path, failing: Failing, kind: str, answer: Answer, words: str
) -> None:
    failing.script = {kind: [answer] * 9}
    sleeps: list[float] = []
    with pytest.raises(RegistryFailed, match=f"({words}).*4 times"):
        attempt(tmp_path, failing.url, sleeps)
    assert sleeps == [1.0, 2.0, 4.0]
    assert len(failing.script[kind]) == 5 or answer == "drop"
    assert (kind == "PUT manifest") == ("PUT manifest" in failing.log)


@pytest.mark.parametrize("kind", ["HEAD", "POST", "PUT blob", "PUT manifest"])
@pytest.mark.parametrize(("status", "words"), [(400, "will not help"), (401, "credentials"), (403, "credentials")])
def test_a_refusal_is_final(tmp_path: Path, failing: Failing, kind: str, status: int, words: str) -> None:
    failing.script = {kind: [status]}
    sleeps: list[float] = []
    with pytest.raises(RegistryFailed, match=f"status {status}.*{words}") as caught:
        attempt(tmp_path, failing.url, sleeps)
    assert sleeps == []
    assert kind == "HEAD" or "said here" in str(caught.value)


@pytest.mark.parametrize(("value", "waited"), [("7", 7.0), ("0", 1.0), ("100000", 60.0), ("Wed, 21 Oct 2026", 1.0)])
def test_the_registry_may_ask_for_a_longer_wait(tmp_path: Path, failing: Failing, value: str, waited: float) -> None:
    failing.script = {"POST": [(429, {"Retry-After": value})]}
    sleeps: list[float] = []
    attempt(tmp_path, failing.url, sleeps)
    assert sleeps == [waited]


@pytest.mark.parametrize(("kind", "status"), [("HEAD", 200), ("PUT blob", 201), ("PUT manifest", 201)])
def test_another_digest_than_ours_is_a_failure(tmp_path: Path, failing: Failing, kind: str, status: int) -> None:
    lie = "sha256:" + "0" * 64
    failing.script = {kind: [(status, {"Docker-Content-Digest": lie})]}
    with pytest.raises(RegistryFailed, match=f"as {lie}, not sha256:"):
        attempt(tmp_path, failing.url, [])


def test_a_manifest_stored_without_a_digest_is_read_back(tmp_path: Path, failing: Failing) -> None:
    failing.script = {"PUT manifest": [(201, {"X-Nothing": "1"})]}
    with pytest.raises(DigestMismatch, match="do not use it"):
        attempt(tmp_path, failing.url, [])
    assert failing.log[-2:] == ["PUT manifest", "GET"]


def test_an_upload_without_an_address_is_a_failure(tmp_path: Path, failing: Failing) -> None:
    failing.script = {"POST": [(202, {"Location": ""})]}
    with pytest.raises(RegistryFailed, match="without a Location"):
        attempt(tmp_path, failing.url, [])


def test_a_damaged_layer_never_becomes_a_manifest(tmp_path: Path, failing: Failing) -> None:
    layout, image = build(tmp_path)
    path = layout / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + b"\1" + data[-1999:])
    sleeps: list[float] = []
    with pytest.raises(DigestMismatch, match=image.layers[0].digest):
        send(layout, image.digest, failing.url, sleeps)
    assert sleeps == []
    assert "PUT manifest" not in failing.log


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RegistryFailed, match=f"{url}/v2/models/x: ConnectionRefusedError"):
            attempt(tmp_path, url, [])
