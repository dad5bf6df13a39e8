"""An upstream for the live probe: it behaves as the request's text asks, and keeps what it saw. Not an engine: it generates nothing.

The last message says `probe: KIND TAG`. silent: never a byte; refuses: 503 at once; slow: a chunk each second; dies: two chunks, then the connection
closes; answer: at once. Whether the caller leaves is seen on the socket.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST_SECONDS = 900.0


class AddressTaken(ValueError):
    """The probe cannot listen there."""


@dataclass
class Asked:
    """One request as it arrived. `left` is when the caller had gone; None where it waited until the end."""

    kind: str
    tag: str
    at: float
    ended: float | None = None
    left: float | None = None


@dataclass
class Upstream:
    """What arrived, and where it listens."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: set[socket.socket] = field(default_factory=set)

    def of(self, tag: str) -> list[Asked]:
        with self.lock:
            return [each for each in self.asked if each.tag == tag]

    def hang_up(self) -> None:
        """Connections that a proxy keeps would go on being served here, beside the next one that listens at the address."""
        with self.lock:
            for each in self.connections:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@contextmanager
def upstream(host: str, port: int) -> Iterator[Upstream]:
    """Listens until the block ends. Raises AddressTaken."""
    seen = Upstream()
    handler = type("Handler", (_Handler,), {"seen": seen})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise AddressTaken(f"{host}:{port}: {said}; name a free address of this machine for the probe") from None
    server.daemon_threads = True
    seen.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        seen.hang_up()


class _Handler(BaseHTTPRequestHandler):
    seen: Upstream
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def setup(self) -> None:
        super().setup()
        with self.seen.lock:
            self.seen.connections.add(self.connection)

    def finish(self) -> None:
        with self.seen.lock:
            self.seen.connections.discard(self.connection)
        with suppress(OSError):  # the caller may have gone, or the probe
            super().finish()

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": "probe", "object": "model"}]})

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            kind, _, tag = str(body["messages"][-1]["content"]).partition("probe: ")[2].partition(" ")
        except (ValueError, KeyError, IndexError, TypeError):
            self._json(400, {"error": {"message": "not a probe's request", "type": "invalid_request_error"}})
            return
        asked = Asked(kind or "answer", tag, time.monotonic())
        with self.seen.lock:
            self.seen.asked.append(asked)
        try:
            self._behave(asked.kind, bool(body.get("stream")), asked)
        except OSError:
            asked.left = asked.left or time.monotonic()
        finally:
            asked.ended = time.monotonic()

    def _behave(self, kind: str, stream: bool, asked: Asked) -> None:
        if kind == "refuses":
            self._json(503, {"error": {"message": "overloaded", "type": "server_error"}})
        elif kind == "silent":
            self._wait(LONGEST_SECONDS, asked)
            self.close_connection = True
        elif not stream:
            if kind != "slow" or self._wait(LONGEST_SECONDS, asked):
                self._json(
                    200,
                    {
                        "id": "p",
                        "object": "chat.completion",
                        "choices": [
                            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
                        ],
                    },
                )
        else:
            self._stream(kind, asked)

    def _stream(self, kind: str, asked: Asked) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for count in range(int(LONGEST_SECONDS) if kind == "slow" else 2):
            self._chunk(
                {
                    "id": "p",
                    "object": "chat.completion.chunk",
                    "choices": [{"index": 0, "delta": {"content": f"{count} "}}],
                }
            )
            if kind == "slow" and not self._wait(1.0, asked):
                return
        if kind == "dies":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._raw(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _wait(self, seconds: float, asked: Asked) -> bool:
        """False as soon as the caller has gone."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.5))
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                asked.left = time.monotonic()
                self.close_connection = True
                return False
        return True

    def _chunk(self, value: dict[str, Any]) -> None:
        self._raw(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _raw(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
