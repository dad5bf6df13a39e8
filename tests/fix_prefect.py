"""A real Prefect server on loopback with SQLite in a folder that is thrown away: one a session.

`in_prefect` points the Prefect of the test's own process at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fix_envoy import free_ports
from tests.fix_http import await_http

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS, TOLD_SECONDS, LOCKED_SECONDS = 120, 30, 60
BUSY = httpx.codes.SERVICE_UNAVAILABLE


@dataclass(frozen=True)
class PrefectServer:
    """Its API's address and a home of its own."""

    api: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "PREFECT_"))}
        return {
            **kept, "PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home), "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING",
        }  # fmt: skip

    def python(self, code: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """A program whose Prefect is this server, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
        )  # fmt: skip

    def get(self, path: str) -> Any:
        return self._asked("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._asked("POST", path, body)

    def _asked(self, method: str, path: str, body: Any) -> Any:
        """Its 503 says that its SQLite is held by another writer at this moment; Prefect's own client asks again too."""
        deadline = time.monotonic() + LOCKED_SECONDS
        while (answer := httpx.request(method, f"{self.api}{path}", json=body, timeout=30)).status_code == BUSY:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.3)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def events(self, name: str, model: str) -> list[dict[str, Any]]:
        """Of that model, once there are any; the server writes what it was sent a moment later."""
        wanted = {"event": {"name": [name]}, "resource": {"id": [f"liftlock.model.{model}"]}}
        deadline = time.monotonic() + TOLD_SECONDS
        while not (found := self.post("/events/filter", {"filter": wanted})["events"]) and time.monotonic() < deadline:
            time.sleep(0.3)
        return list(found)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    home = tmp_path_factory.mktemp("prefect")
    (port,) = free_ports(1)
    made = PrefectServer(f"http://127.0.0.1:{port}/api", home)
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, cwd=home, stdout=output, stderr=output, env=made.environment, start_new_session=True
        )
    try:
        await_http(f"{made.api}/health", process, log, START_SECONDS)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def in_prefect(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The process's sender of events is bound to the server before, so it is ended on both sides."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_LOGGING_LEVEL,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_RESULTS_LOCAL_STORAGE_PATH,
        temporary_settings,
    )

    here: dict[Any, Any] = {
        PREFECT_API_URL: prefect_server.api, PREFECT_HOME: prefect_server.home, PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_LOGGING_TO_API_ENABLED: False, PREFECT_RESULTS_LOCAL_STORAGE_PATH: prefect_server.home / "storage",
    }  # fmt: skip
    EventsWorker.drain_all(timeout=5)
    with temporary_settings(here):
        yield prefect_server
        EventsWorker.drain_all(timeout=5)
