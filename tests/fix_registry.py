"""A real OCI registry for tests: Debian's docker-registry on loopback, one server a session, storage thrown away.

Without docker-registry on PATH the tests that ask for it are skipped. Tests share the server: each uses `repository`.
"""

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fix_waiting import PATIENCE_SECONDS

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}", secret: only-for-tests}}
"""


def pytest_report_header() -> str:
    if (program := shutil.which("docker-registry")) is None:
        return "registry: docker-registry is not on PATH"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return f"registry: {version.stdout.strip()}"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a registry."""
    if (program := shutil.which("docker-registry")) is None:
        pytest.skip("docker-registry is not on PATH: apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config, log = folder / "config.yml", folder / "log"
    config.write_text(CONFIG.format(folder=folder / "storage", port=port))
    with log.open("wb") as output:
        process = subprocess.Popen([program, "serve", config], cwd=folder, stdout=output, stderr=output)
    try:
        _wait(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder / "storage", ignore_errors=True)


@pytest.fixture
def repository() -> str:
    """A repository name that no other test uses."""
    return f"models/test-{uuid.uuid4().hex}"


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            httpx.get(f"{url}/v2/").raise_for_status()
        except httpx.HTTPError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"docker-registry did not start: {log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
