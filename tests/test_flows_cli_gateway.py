"""`liftlock apikey` and `liftlock trace` as they are typed, with a real Envoy on the ports of a state folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from serving.gateway.rotation import MAX_BYTES
from serving.gateway.state import Gateway
from tasks.stack.engine import Engine, write_engine
from tests.fix_engine import FakeEngine
from tests.fix_envoy import Envoy, free_ports, running_envoy
from tests.test_serving_gateway_duties import logged

ROOT = Path(__file__).resolve().parent.parent
CHAT = "/v1/chat/completions"
BASE = "base-model"


def liftlock(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    found = {**os.environ, "LIFTLOCK_STATE": str(state), "PYTHONPATH": str(ROOT), **environment}
    argv = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(argv, env=found, capture_output=True, text=True, check=False)


def test_a_key_is_added_used_listed_traced_and_revoked(engine: FakeEngine, tmp_path: Path) -> None:
    port, admin = free_ports(2)
    names = ("postgres", "mlflow", "prefect", "vllm", "envoy", "envoy-admin")
    ports = dict(zip(names, (1, 1, 1, urlsplit(engine.url).port, port, admin), strict=True))
    (tmp_path / "ports.json").write_text(json.dumps(ports))
    write_engine(tmp_path, Engine(f"/models/{BASE}"))
    gateway = Gateway(tmp_path / "gateway", f"http://127.0.0.1:{admin}", engine.url, BASE)
    gateway.install(port, admin)
    envoy = Envoy(gateway, f"http://127.0.0.1:{port}")
    try:
        envoy.start()
        assert "no key is required" in liftlock(tmp_path, "apikey", "list").stdout
        made = liftlock(tmp_path, "apikey", "add", "billing", "--models", BASE, "--per-minute", "600")
        assert made.returncode == 0, made.stderr
        key = made.stdout.strip()
        assert "it is kept nowhere" in made.stderr
        headers = {"authorization": f"Bearer {key}", "x-request-id": "invoice-17"}
        assert httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}).status_code == 401
        assert httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers=headers).status_code == 200
        again = liftlock(tmp_path, "apikey", "add", "billing")
        assert (again.returncode, "billing has a key" in again.stderr) == (2, True)
        listed = json.loads(liftlock(tmp_path, "apikey", "list", "--json").stdout)
        row = next(row for row in listed["keys"] if row["client"] == "billing")
        assert (row["models"], row["per_minute"]) == ([BASE], 600)
        assert "sha256" not in row
        logged(envoy, "invoice-17")
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "vllm.log").write_text("INFO Received request chatcmpl-invoice-17: params: x\n")
        traced = liftlock(tmp_path, "trace", "invoice-17")
        assert traced.returncode == 0, traced.stderr
        first, second = traced.stdout.splitlines()
        assert first.startswith("gateway ")
        assert "client billing; asked for base-model, served by base-model; status 200" in first
        assert second == "engine   INFO Received request chatcmpl-invoice-17: params: x"
        unknown = liftlock(tmp_path, "trace", "invoice-18")
        assert (unknown.returncode, "no line names invoice-18" in unknown.stderr) == (3, True)
        assert liftlock(tmp_path, "apikey", "revoke", "billing").returncode == 0
        assert httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers=headers).status_code == 401
        assert liftlock(tmp_path, "apikey", "off").returncode == 0
        assert httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}).status_code == 200
    finally:
        envoy.kill()


def test_the_minutely_flow_turns_over_a_log_that_is_long(engine: FakeEngine, tmp_path: Path) -> None:
    log = tmp_path / "gateway" / "access.log"
    with running_envoy(tmp_path / "gateway", engine.url) as envoy:
        admin = urlsplit(envoy.gateway.admin_url).port
        names = ("postgres", "mlflow", "prefect", "vllm", "envoy")
        (tmp_path / "ports.json").write_text(json.dumps({**dict.fromkeys(names, 1), "envoy-admin": admin}))
        assert turned_over(tmp_path) == "False"
        with log.open("r+b") as file:
            file.truncate(MAX_BYTES)
        assert turned_over(tmp_path) == "True"
        assert (tmp_path / "gateway" / "access.log.1").stat().st_size >= MAX_BYTES
    log.unlink()  # so Envoy would have to be told
    assert turned_over(tmp_path) == "False", "a gateway that is down is no error"


def turned_over(state: Path) -> str:
    found = {**os.environ, "LIFTLOCK_STATE": str(state), "PYTHONPATH": str(ROOT)}
    code = "from tasks.access_log import turn_over_access_log; print(turn_over_access_log())"
    return subprocess.run(
        [sys.executable, "-c", code], env=found, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_an_endpoint_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(
        json.dumps(dict.fromkeys(("postgres", "mlflow", "prefect", "vllm", "envoy", "envoy-admin"), 1))
    )
    for name in ("LIFTLOCK_FALLBACK", "LIFTLOCK_ENDPOINTS"):
        done = liftlock(tmp_path, "apikey", "list", **{name: "https://somewhere"})
        assert done.returncode == 2
        assert "required: MODEL@http://host:port" in done.stderr
