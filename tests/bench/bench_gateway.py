"""make bench-gateway: what the gateway costs, with all its duties, in front of an instant engine.

Three ways to the same engine: direct, through an Envoy that only forwards, and through the gateway: key and its limit checked, name read and
rewritten, canary at 50 %, ids, token counts, access log. Engine and clients run on the same cores. Limits: 2,000 streams a second;
25 ms more to the first token at 20 clients with prompts of 220 KB; no failed request.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from serving.gateway.keys import new_key
from serving.gateway.parts import HTTP, TYPES, address
from serving.gateway.state import Gateway
from tests.bench.figures import Figure, end, flags
from tests.fix_envoy import Envoy, free_ports, running_envoy

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
SECONDS = 4.0
LIMIT_RATE, LIMIT_ADDED_MS = 2000, 25.0
LARGE = 220 * 1000
WAYS = ("direct", "plain Envoy", "gateway")


@dataclass(frozen=True)
class Load:
    """`clients` ask with prompts of `size` bytes, `pause` seconds after each answer."""

    name: str
    clients: int
    size: int
    pause: float
    usage: bool = True  # whether the stream's tokens are asked for, and so counted


LOADS = (
    Load("short prompts, no pause", 64, 1000, 0.0),
    Load("the same, tokens not asked for", 64, 1000, 0.0, usage=False),
    Load("short prompts, 20 clients, 20 ms pause", 20, 1000, 0.02),
    Load("220 KB prompts, 20 clients, 100 ms pause", 20, LARGE, 0.1),
    Load("220 KB prompts, 20 clients, no pause", 20, LARGE, 0.0),
)


def python() -> str:
    """The engine's Python where it is installed: it has uvloop, so the load costs less of the cores."""
    own = Path(os.environ.get("LIFTLOCK_TOOLCHAIN", ROOT / ".toolchain")) / "vllm" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


@contextmanager
def instant_engine() -> Iterator[int]:
    argv = [python(), str(FOLDER / "gateway_backend.py")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def plain_envoy(folder: Path, port_of_engine: int) -> Iterator[int]:
    """An Envoy that forwards everything to the engine and does nothing else."""
    port, admin = free_ports(2)
    folder.mkdir()
    route = {"match": {"prefix": "/"}, "route": {"cluster": "engine"}}
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}],
    }
    listener = {
        "address": address("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    hosts = [{"lb_endpoints": [{"endpoint": {"address": address("127.0.0.1", port_of_engine)}}]}]
    cluster = {"name": "engine", "type": "STATIC", "load_assignment": {"cluster_name": "engine", "endpoints": hosts}}
    whole = {
        "admin": {"address": address("127.0.0.1", admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    (folder / "bootstrap.json").write_text(json.dumps(whole))
    envoy = Envoy(
        Gateway(folder, f"http://127.0.0.1:{admin}", "", ""),
        f"http://127.0.0.1:{port}",
        ready=f"http://127.0.0.1:{admin}/ready",
    )
    try:
        envoy.start()
        yield port
    finally:
        envoy.kill()


@contextmanager
def gateway(folder: Path, port_of_engine: int) -> Iterator[tuple[int, str]]:
    """Port and key of a gateway with every duty on."""
    with running_envoy(folder, f"http://127.0.0.1:{port_of_engine}") as envoy:
        for number in range(8):
            envoy.gateway.set_stable(f"other-{number}", f"other-{number}-0a1b2c3d4e5f")
        envoy.gateway.set_stable("ticket-router", "ticket-router-0a1b2c3d4e5f")
        envoy.gateway.set_weight("ticket-router", "ticket-router-5f4e3d2c1b0a", 50)
        made = [new_key(f"client-{number}", ["ticket-router"], 1_000_000) for number in range(32)]
        envoy.gateway.change_keys(lambda _: tuple(key for _, key in made))
        yield urlsplit(envoy.url).port or 0, made[-1][0]


def request(size: int, key: str, usage: bool) -> bytes:
    """A whole HTTP request whose prompt is ordinary text of that many bytes, with quotes and line ends to escape."""
    line = 'The customer wrote: "My parcel has not arrived.\nPlease tell me where it is." '
    text = (line * (size // len(line) + 1))[:size]
    body = {
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        **({"stream_options": {"include_usage": True}} if usage else {}),
        "model": "ticket-router",
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


@dataclass(frozen=True)
class Measured:
    """Streams a second, failures, percentiles of the time to the first token in milliseconds, and Envoy's processor time a stream in
    microseconds, which other work on the machine hardly changes.
    """

    rate: float
    failures: int
    p50: float
    p99: float
    envoy_us: float


def measure(load: Load, port: int, key: str, folder: Path, seconds: float) -> Measured:
    busy = _envoys_seconds()
    file = folder / "request"
    file.write_bytes(request(load.size, key, load.usage))
    arguments = (port, load.clients, seconds, load.pause, file)
    argv = [python(), str(FOLDER / "gateway_client.py"), *map(str, arguments)]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    if not found["first"]:
        return Measured(0, found["failures"], float("inf"), float("inf"), 0)
    p50, p99 = np.percentile(found["first"], [50, 99])
    each = (_envoys_seconds() - busy) / found["answers"] * 1e6
    return Measured(found["answers"] / found["seconds"], found["failures"], float(p50), float(p99), each)


def _envoys_seconds() -> float:
    """Processor time of this bench's Envoys until now; only the one that is asked adds to it."""
    envoys = [child for child in psutil.Process().children() if "envoy" in child.name()]
    return sum(sum(one.cpu_times()[:2]) for one in envoys)


def measure_all(seconds: float) -> dict[str, dict[str, Measured]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            instant_engine() as engine,
            plain_envoy(folder / "plain", engine) as plain,
            gateway(folder / "gateway", engine) as (port, key),
        ):
            ports = dict(zip(WAYS, (engine, plain, port), strict=True))
            for way in WAYS:
                measure(LOADS[0], ports[way], key, folder, 1.0)  # Lua is compiled, connections are open
            return {load.name: {way: measure(load, ports[way], key, folder, seconds) for way in WAYS} for load in LOADS}


def main() -> int:
    short = flags(__doc__, "--short").short
    found = measure_all(0.7 if short else SECONDS)
    print(
        f"{'load':<42}{'way':<13}{'streams/s':>10}{'of direct':>10}{'first p50':>11}{'p99':>9}{'added p50':>11}{'p99':>9}{'Envoy':>9}  failed"
    )
    for name, ways in found.items():
        direct = ways["direct"]
        for way, one in ways.items():
            added = f"{one.p50 - direct.p50:>8.2f} ms{one.p99 - direct.p99:>6.1f} ms"
            speed = f"{one.rate:>10,.0f}{one.rate / direct.rate:>10.2f}{one.p50:>8.2f} ms{one.p99:>6.1f} ms"
            print(f"{name:<42}{way:<13}{speed}{added}{one.envoy_us:>6.0f} us  {one.failures}")
    rate = found[LOADS[0].name]["gateway"].rate
    large = found[LOADS[3].name]
    added = large["gateway"].p50 - large["direct"].p50, large["gateway"].p99 - large["direct"].p99
    flooded = found[LOADS[4].name]
    flooded_added = flooded["gateway"].p50 - flooded["direct"].p50
    failures = sum(one.failures for ways in found.values() for one in ways.values())
    others = {way: found[LOADS[0].name][way].rate for way in WAYS[:2]}
    plain = large["plain Envoy"].p50 - large["direct"].p50
    figures = [
        Figure("streams a second", rate, "", "higher", LIMIT_RATE, beside=others),
        Figure(
            "added to the first token, 220 KB, p50",
            added[0],
            "ms",
            "lower",
            LIMIT_ADDED_MS,
            beside={"plain Envoy": plain},
        ),
        Figure("added to the first token, 220 KB, p99", added[1], "ms", "lower", LIMIT_ADDED_MS, noise=0.5),
        Figure("the same flooded, p50", flooded_added, "ms", noise=0.5),
        Figure("failed requests", failures, "", "lower", 0),
    ]
    return end("gateway", figures, short=short)


if __name__ == "__main__":
    sys.exit(main())
