"""MLflow's and Prefect's servers, started by the very commands and variables of deploy/ with a real Postgres on loopback.

What a pod would have is replaced and nothing else: address, port, database, /tmp and the bucket.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from tests.fix_deploy import DEPLOY, Document, pod_templates, rendered
from tests.fix_envoy import free_ports

pytestmark = pytest.mark.slow
SECONDS = 120
PASSWORD = "$(PGUSER):$(PGPASSWORD)@liftlock-pg-rw:5432"


@dataclass(frozen=True)
class Server:
    container: Document
    url: str

    def probe(self) -> httpx.Response:
        """As the kubelet asks."""
        asked = self.container["readinessProbe"]["httpGet"]
        headers = {one["name"]: one["value"] for one in asked.get("httpHeaders", ())}
        return httpx.get(f"{self.url}{asked['path']}", headers=headers, timeout=10)


@contextmanager
def running(name: str, dsn: str, folder: Path) -> Iterator[Server]:
    (container,) = [
        pod["spec"]["containers"][0]
        for owner, pod in pod_templates(rendered(DEPLOY / "overlays/generic"))
        if owner == name
    ]
    (port,) = free_ports(1)
    inside = str(container["ports"][0]["containerPort"])
    here = {"0.0.0.0": "127.0.0.1", inside: str(port)}  # noqa: S104
    words = [here.get(word, word) for word in container["command"]]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for one in container["env"]:
        if "value" in one:
            environment[one["name"]] = _replaced(one["value"], dsn, folder)
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(container, f"http://127.0.0.1:{port}")
    try:
        _wait(server, process, log)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _replaced(value: str, dsn: str, folder: Path) -> str:
    parts = urlsplit(dsn)
    if PASSWORD in value:
        return f"{value.partition('://')[0]}://{parts.netloc}{parts.path}{f'?{parts.query}' if parts.query else ''}"
    return value.replace("gs://example-liftlock-mlflow", f"{folder}/bucket").replace("/tmp", str(folder))  # noqa: S108


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if server.probe().status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.3)


def test_mlflow_answers_by_its_services_name_and_to_no_other(database: str, tmp_path: Path) -> None:
    with running("mlflow", database, tmp_path) as server:
        settings = next(
            one["data"] for one in rendered(DEPLOY / "mlops") if one["metadata"]["name"] == "liftlock-settings"
        )
        host = urlsplit(settings["LIFTLOCK_MLFLOW_URI"]).netloc
        path = f"{server.url}/api/2.0/mlflow/experiments/search"
        asked = {"max_results": 5}
        assert httpx.post(path, json=asked, headers={"host": host}, timeout=30).json()["experiments"]
        assert httpx.post(path, json=asked, headers={"host": "elsewhere.example.com"}, timeout=30).status_code == 403


def test_prefects_server_has_its_api_and_page_on_a_read_only_root(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create extension if not exists pg_trgm")  # deploy/database has the operator do it
    with running("prefect-server", database, tmp_path) as server:
        pools = httpx.post(f"{server.url}/api/work_pools/filter", json={}, timeout=30)
        assert (pools.status_code, pools.json()) == (200, [])
        assert "<html" in httpx.get(server.url, follow_redirects=True, timeout=30).text.lower()
        assert any((tmp_path / "ui").rglob("index.html"))  # written there, not into the package
