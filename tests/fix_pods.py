"""Engines on the addresses of a cluster's pods, and a gateway that follows the HTTPRoute as it is: where no container runs and no
gateway controller is, the requests still go the way that the objects say.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fix_api_server import ApiServer
from tests.fix_engine import Behaviour, FakeEngine, running_engine

PORT = 8000
LOOK_SECONDS = 0.1
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in (pod.get("status") or {}).get("conditions") or ()}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@dataclass
class Pods:
    """An engine at every ready engine pod of the namespace. `behaviours` by member name, as it shall answer."""

    api: ApiServer
    namespace: str
    model: str
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    engines: dict[str, tuple[ExitStack, FakeEngine, str]] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    route: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""  # of the last look
    _stop: threading.Event = field(default_factory=threading.Event)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def follow(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with self._looking:
                if not self._stop.is_set():
                    self._try()

    def _try(self) -> None:
        try:
            self.look()
            self.trouble = ""
        except Exception as error:  # noqa: BLE001 - the API server may be down for a while: what was known stays
            self.trouble = repr(error)

    def look(self) -> None:
        listed = self._get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        ready = {
            pod["status"]["podIP"]: pod["metadata"]["labels"][NAME]
            for pod in listed
            if pod["metadata"]["labels"].get(COMPONENT) == "engine" and is_ready(pod)
        }
        for address in set(self.engines) - set(ready):
            self.engines.pop(address)[0].close()
        for address in set(ready) - set(self.engines):
            self.engines[address] = self._start(address, ready[address])
        self.members = {name: [at for at, whose in ready.items() if whose == name] for name in ready.values()}
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.namespace}/httproutes/{self.model}-route"
        answer = self.api.client.get(path)
        self.route = answer.json() if answer.status_code == 200 else {}
        if self.route:
            self._take(path)

    def _take(self, path: str) -> None:
        """What a gateway's controller writes of a route that it serves."""
        generation = self.route["metadata"]["generation"]
        parents = (self.route.get("status") or {}).get("parents") or [{"conditions": [{"observedGeneration": 0}]}]
        if parents[0]["conditions"][0]["observedGeneration"] == generation:
            return
        conditions = [
            {
                "type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": generation,
                "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]  # fmt: skip
        reference = self.route["spec"]["parentRefs"][0]
        parent = {"parentRef": reference, "controllerName": "example.com/test", "conditions": conditions}
        self.api.client.patch(
            f"{path}/status", json={"status": {"parents": [parent]}},
            headers={"content-type": "application/merge-patch+json"},
        )  # fmt: skip

    def _start(self, address: str, member: str) -> tuple[ExitStack, FakeEngine, str]:
        stack = ExitStack()
        engine = stack.enter_context(running_engine(address, PORT))
        behaviour = self.behaviours.get(member, Behaviour())
        engine.models = {self.model: behaviour, member: behaviour}
        return stack, engine, member

    def backend(self, model: str) -> str | None:
        """A ready pod of one of the rule's backends, drawn by weight; None: 404 or 503."""
        for rule in (self.route.get("spec") or {}).get("rules") or ():
            if rule["matches"][0]["headers"][0]["value"] == model:
                weights = [backend["weight"] for backend in rule["backendRefs"]]
                name = random.choices(rule["backendRefs"], weights)[0]["name"]
                return random.choice(self.members.get(name) or [""]) or None
        return None

    def asked(self, member: str) -> int:
        return sum(engine.requests.total() for _, engine, whose in self.engines.values() if whose == member)

    def _get(self, path: str) -> dict[str, Any]:
        answer = self.api.client.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def close(self) -> None:
        self._stop.set()
        with self._looking:  # the last look starts engines
            for stack, _, _ in self.engines.values():
                stack.close()


class _Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pods: Pods

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        address = self.pods.backend(json.loads(body)["model"])
        if address is None:
            said = {"error": f"no backend {self.pods.trouble}", "members": self.pods.members}
            return self._answer(503, json.dumps(said).encode(), "application/json")
        connection = http.client.HTTPConnection(address, PORT, timeout=60)
        try:
            connection.request("POST", self.path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            kind = answer.getheader("content-type") or ""
            return self._answer(answer.status, answer.read(), kind)
        except OSError as error:
            return self._answer(502, json.dumps({"error": str(error)}).encode(), "application/json")
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False


@contextmanager
def running_gateway(api: ApiServer, namespace: str, model: str) -> Iterator[tuple[str, Pods]]:
    """(address without /v1, pods)."""
    pods = Pods(api, namespace, model)
    server = _Server(("127.0.0.1", 0), type("Gateway", (_Gateway,), {"pods": pods}))
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True),
        threading.Thread(target=pods.follow, daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", pods
    finally:
        server.shutdown()
        server.server_close()
        pods.close()
