"""HTTP servers on loopback for tests: a real app under uvicorn, answers given in turn, or a process that is waited for."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import uvicorn
from starlette.applications import Starlette

LOOK_SECONDS = 0.05


def answers_http(url: str) -> bool:
    """Whether it says 200 now. Not by httpx: each of its clients reads the certificates, and this is asked twenty times a second."""
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def await_http(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Until it says 200. RuntimeError with the log's end where the process is gone, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not answers_http(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(LOOK_SECONDS)


class Answering:
    """One answer. A text goes as it is, anything else as JSON."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        self.body = (body if isinstance(body, str) else json.dumps(body)).encode()


def answering(status: int, body: Any, headers: dict[str, str] | None = None) -> Answering:
    return Answering(status, body, headers)


class Recorded:
    """Requests of a server of `serving_answers`: path, headers in lower case, JSON body."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], Any]] = []


@contextmanager
def serving_answers(*answers: Answering) -> Iterator[Recorded]:
    """Gives the answers in turn, and the last one for ever."""
    recorded, lock = Recorded(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            with lock:
                given = answers[min(len(recorded.requests), len(answers) - 1)]
                headers = {name.lower(): value for name, value in self.headers.items()}
                recorded.requests.append((self.path, headers, body))
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorded.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield recorded
        server.shutdown()


@contextmanager
def serving_app(app: Starlette) -> Iterator[str]:
    """The app's address, under a real server."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def events_of(*pieces: str, done: bool = True) -> str:
    """A chat completion as a server of OpenAI's API streams it."""
    rows = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    return "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + ("data: [DONE]\n\n" if done else "")
