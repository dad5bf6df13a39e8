"""An engine that is bad on purpose: a proxy before a real one that is slow, fails, cuts streams, answers nothing, refuses, or hangs.

It answers as a version of its own, so a canary can be given to it. For drills and benches; it never serves a real release.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import httpx

Fault = Literal["none", "slow", "errors", "cut", "empty", "refused", "wrong", "hang"]
FAULTS: dict[Fault, str] = {
    "none": "nothing is wrong: it must reach 100 %",
    "slow": "the first token takes several times as long",
    "errors": "a share of the requests fails with status 500",
    "cut": "a share of the streams ends in the middle",
    "empty": "a share of the answers has no text",
    "refused": "a share of the answers is a refusal",
    "wrong": "every answer is well-formed, quick, and another one than the version's own",
    "hang": "it accepts requests and never answers",
}
LEAST_DELAY_SECONDS = 0.1  # what a slow one is slower by is measured against at least this
HANG_SECONDS = 600
REFUSAL = "I'm sorry, I cannot help with that."
WRONG = " of course"
TEXTS: dict[Fault, str] = {"empty": "", "refused": REFUSAL, "wrong": WRONG}


@dataclass
class FaultyEngine:
    """`name` is how the gateway asks for it, `served` the name of the model at `upstream`; other models pass untouched. A context manager.

    `share` of the requests is hit, spread evenly; `slowness` is the ratio of the first-token time. `healthy` first requests are
    answered well, so that it passes a warm-up.
    """

    upstream: str
    name: str
    served: str
    fault: Fault
    share: float = 0.25
    slowness: float = 4.0
    healthy: int = 0
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FaultyEngine:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.client = httpx.Client(
            timeout=HANG_SECONDS, limits=limits
        )  # one for all: making one takes longer than a request
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"engine": self}))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self.client.close()

    def next_fault(self) -> Fault:
        """Of the request that has just arrived."""
        with self._lock:
            self.asked["all"] += 1
            place = self.asked["all"] - self.healthy
            if place <= 0:
                return "none"
            whole = self.fault in ("slow", "wrong", "hang")
            hit = whole or int(place * self.share) > int((place - 1) * self.share)
            self.asked["hit"] += hit
            return self.fault if hit else "none"


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: FaultyEngine

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, httpx.HTTPError):  # the client, or the engine behind, is gone
            self.close_connection = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        if not self.path.endswith("/completions"):
            return self._whole(404, {"error": {"message": "a drill has nothing to unload", "code": 404}})
        if body.get("model") != self.engine.name:
            return self._forward(body, "none")
        fault = self.engine.next_fault()
        if fault == "errors":
            return self._whole(500, {"error": {"message": "a drill: this request fails", "code": 500}})
        if fault == "hang":
            self.engine.closing.wait(HANG_SECONDS)
            self.close_connection = True
            return None
        return self._forward({**body, "model": self.engine.served}, fault)

    def _forward(self, body: dict[str, Any], fault: Fault) -> None:
        began = time.monotonic()
        with self.engine.client.stream("POST", self.engine.upstream + self.path, json=body) as answer:
            if not body.get("stream"):
                found = json.loads(answer.read())
                return self._whole(
                    answer.status_code, found | {"model": self.engine.name} if "model" in found else found
                )
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "text/event-stream"))
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._lines((line for line in answer.iter_lines() if line), fault, began)
        return None

    def _lines(self, lines: Iterator[str], fault: Fault, began: float) -> None:
        for number, line in enumerate(lines):
            if number == 0 and fault == "slow":
                waited = max(time.monotonic() - began, LEAST_DELAY_SECONDS)
                self.engine.closing.wait((self.engine.slowness - 1) * waited)
            if number == 1 and fault == "cut":
                self.close_connection = True
                return
            self._chunk(f"{self._changed(line, fault)}\n\n".encode())
        self.wfile.write(b"0\r\n\r\n")

    def _changed(self, line: str, fault: Fault) -> str:
        """The line of the event stream under the candidate's name, with its text as the fault has it."""
        if not line.startswith("data: {"):
            return line
        event = self._signed(json.loads(line[6:]))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("content") and fault in TEXTS:
                delta["content"] = TEXTS[fault]
        return f"data: {json.dumps(event)}"

    def _signed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Under the candidate's name where the engine signs with the name of the model behind it."""
        return answer | {"model": self.engine.name} if answer.get("model") == self.engine.served else answer

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _whole(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
