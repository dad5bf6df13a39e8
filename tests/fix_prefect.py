"""A real Prefect server on loopback with SQLite in a folder that is thrown away: one a session."""

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

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120


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
        answer = httpx.get(f"{self.api}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        answer = httpx.post(f"{self.api}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None


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
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(f"{made.api}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prefect did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
