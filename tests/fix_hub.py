"""A small Hugging Face hub on a real socket: the list of files, and files by range behind a redirect to another host.

What was asked, and how many bytes of files went out, is kept. It serves folders; it knows no accounts but one token.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_only_for_tests"
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@dataclass
class FakeHub:
    """`models`: folders by id. Files are at http://localhost, the list at http://127.0.0.1: two hosts for a client."""

    models: dict[str, Path] = field(default_factory=dict)
    private: bool = False
    ignores_ranges: bool = False
    listing: bytes | None = None  # sent in place of the true one
    status: int = 200  # of files
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    authorised_files: list[str] = field(default_factory=list)  # files that were asked for with the token
    file_bytes: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that has read enough is no error of the hub
            super().handle()

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/").split("/")
        if path[0] == "files":
            return self._file("/".join(path[1:3]), "/".join(path[3:]))
        if self.hub.private and self.headers["authorization"] != f"Bearer {TOKEN}":
            return self._send(401, b"{}")
        if path[:2] == ["api", "models"] and path[4:5] == ["revision"]:
            return self._list("/".join(path[2:4]), path[5])
        if path[:2] == ["api", "models"] and path[4:5] == ["tree"]:
            return self._tree("/".join(path[2:4]))
        if path[2:4] == ["resolve", COMMIT]:
            port = self.hub.endpoint.rpartition(":")[2]
            self.send_response(302)
            self.send_header("location", f"http://localhost:{port}/files/{path[0]}/{path[1]}/{'/'.join(path[4:])}")
            self.send_header("content-length", "0")
            return self.end_headers()
        return self._send(404, b"{}")

    def _tree(self, model: str) -> None:
        files = [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name}
            for path in self.hub.models[model].iterdir()
        ]
        self._send(200, json.dumps(files).encode())

    def do_HEAD(self) -> None:
        """What huggingface_hub asks before it downloads a file."""
        path = self.path.partition("?")[0].strip("/").split("/")
        file = self.hub.models.get("/".join(path[:2]), Path()) / "/".join(path[4:])
        self.send_response(200 if file.is_file() else 404)
        self.send_header("etag", f'"{path[-1]}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(file.stat().st_size if file.is_file() else 0))
        self.end_headers()

    def _list(self, model: str, revision: str) -> None:
        folder = self.hub.models.get(model)
        if folder is None or revision not in ("main", "v1", COMMIT):
            self._send(404, b"{}")
            return
        files = [{"rfilename": path.name, "size": path.stat().st_size} for path in folder.iterdir()]
        self._send(200, self.hub.listing or json.dumps({"id": model, "sha": COMMIT, "siblings": files}).encode())

    def _file(self, model: str, name: str) -> None:
        if "authorization" in self.headers:
            self.hub.authorised_files.append(name)
        data = (self.hub.models[model] / name).read_bytes()
        match = RANGE.fullmatch(self.headers["range"] or "")
        if self.hub.status != 200:
            self._send(self.hub.status, b"")
            return
        if match and not self.hub.ignores_ranges:
            data = data[int(match[1]) : int(match[2]) + 1]
        self.hub.file_bytes += len(data)
        self._send(206 if match and not self.hub.ignores_ranges else 200, data)

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
