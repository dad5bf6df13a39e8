"""A state folder whose Postgres, MLflow and Prefect are the session's servers, named by settings as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tests.fix_envoy import free_ports
from tests.fix_prefect import ROOT, PrefectServer


@dataclass(frozen=True)
class Surroundings:
    """The ledger's database is new; no engine and no gateway answer."""

    settings: Settings
    prefect: PrefectServer

    @property
    def dsn(self) -> str:
        return addresses(self.settings).dsn("liftlock")

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "PREFECT_", "MLFLOW_"))
        }
        where = addresses(self.settings)
        return {
            **kept, "LIFTLOCK_STATE": str(self.settings.state), "LIFTLOCK_POSTGRES_DSN": where.postgres, "COLUMNS": "160",
            "LIFTLOCK_MLFLOW_URI": where.mlflow, "LIFTLOCK_PREFECT_API_URL": where.prefect_api, "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`liftlock ARGUMENTS`."""
        argv = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, cwd=ROOT, env=self.environment, timeout=300, check=False
        )


@pytest.fixture
def surroundings(
    postgres_dsn: str, mlflow_server: str, prefect_server: PrefectServer, tmp_path: Path
) -> Iterator[Surroundings]:
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE liftlock")  # the stack's own name for it
    (port,) = free_ports(1)
    (tmp_path / "ports.json").write_text(json.dumps({"watch": port, "vllm": 1, "envoy": 2, "envoy-admin": 3}))
    server = postgres_dsn.rpartition("/")[0]
    made = Settings(state=tmp_path, postgres_dsn=server, mlflow_uri=mlflow_server, prefect_api_url=prefect_server.api)  # type: ignore[arg-type]
    try:
        yield Surroundings(made, prefect_server)
    finally:
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            admin.execute("DROP DATABASE liftlock WITH (FORCE)")
