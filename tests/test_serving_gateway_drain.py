"""What a drain waits for: requests that were begun before the change, also those whose body is still on its way."""

import json
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serving.gateway.drain import STILL_SECONDS, drained
from serving.rollout.local import LocalTarget
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy, running_envoy
from tests.fix_waiting import await_that

STABLE, CANDIDATE = "drain-stable", "drain-candidate"
DOWNSTREAM = "http.gateway.downstream_rq_active"


@pytest.fixture(autouse=True)
def adapters(engine: FakeEngine) -> None:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}


class Slow:
    """A request whose body comes in two parts."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        body = json.dumps({"model": model, "messages": []}).encode()
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + body[:5])
        self.rest = body[5:]

    def end(self) -> bytes:
        """The whole answer."""
        with closing(self.socket):
            self.socket.sendall(self.rest)
            return b"".join(iter(lambda: self.socket.recv(65536), b""))


def test_a_drain_waits_for_a_body_that_is_on_its_way(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    """Envoy keeps to the routes of the request's first line. A drain that only counted the candidate's requests ended here, and
    the engine or adapter was gone when the body came.
    """
    target, ended = LocalTarget(envoy.gateway), list[bool]()
    envoy.gateway.set_stable(model, STABLE)
    target.weigh(model, CANDIDATE, 100)
    slow = Slow(envoy.url, model)
    await_that(lambda: envoy.gateway.stats(f"^{DOWNSTREAM}$")[DOWNSTREAM])
    target.restore(model, STABLE)
    waiting = threading.Thread(target=lambda: ended.append(target.drain(model, 30)))
    waiting.start()
    time.sleep(3 * STILL_SECONDS)
    assert not ended
    assert f"x-liftlock-version: {CANDIDATE}".encode() in slow.end()
    waiting.join()
    assert ended == [True]


def test_a_request_that_waits_for_a_connection_is_waited_for(tmp_path: Path) -> None:
    """To an address that takes no connection yet, as an engine that is too busy to accept one."""
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        with running_envoy(tmp_path, f"http://127.0.0.1:{address[1]}") as envoy:
            envoy.gateway.set_stable("tickets", STABLE)
            slow = Slow(envoy.url, "tickets")
            slow.socket.sendall(slow.rest)
            await_that(lambda: envoy.gateway.counters("tickets", "stable").get("upstream_rq_pending_active"))
            assert not drained(envoy.gateway, [("tickets", "stable", None)], 2)
            slow.socket.close()
            assert drained(envoy.gateway, [("tickets", "stable", None)], 20)
        for one in held:
            one.close()
