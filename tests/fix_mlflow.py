"""A real MLflow server on loopback with SQLite in a folder that is thrown away: one a session, one model name a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.fix_envoy import free_ports
from tests.fix_http import await_http

if TYPE_CHECKING:
    from mlflow import MlflowClient

START_SECONDS = 120  # it makes its tables first
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",  # seconds until a webhook that a test makes is known
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "1",
}


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    argv += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            stdout=output,
            stderr=output,
            env={**os.environ, **QUIET, **WEBHOOKS},
            start_new_session=True,
        )
    try:
        await_http(f"http://127.0.0.1:{port}/health", process, log, START_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers; nothing of it is kept
        process.wait()


@pytest.fixture
def mlflow_client(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A client of the server, to which this process' mlflow points as long as the test runs."""
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)  # mlflow sets it too; so it is taken back
    mlflow.set_tracking_uri(mlflow_server)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def registered(mlflow_client: MlflowClient) -> str:
    """The name of a new registered model with the versions 1 to 4."""
    name = f"tickets-{uuid.uuid4().hex[:8]}"
    mlflow_client.create_registered_model(name)
    run = mlflow_client.create_run("0")  # a version's source must lie in a run
    for _ in range(4):
        mlflow_client.create_model_version(name, f"{run.info.artifact_uri}/adapter", run.info.run_id)
    return name
