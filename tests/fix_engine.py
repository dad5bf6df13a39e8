"""A small engine on a real socket that speaks as vLLM does: the boundary in place of a GPU.

Models are known by name with a behaviour each: slow, failing, cutting streams, or not loadable. What was asked is kept as
bytes. It does not tokenize, sample or hold weights: the text of an answer is the name that the model was asked as.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

Json = dict[str, Any]
BASE = "base-model"
MAX_MODEL_LEN = 2048
METRICS = f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{MAX_MODEL_LEN}",engine="0"}} 1.0\n'
COMPLETIONS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


@dataclass(frozen=True)
class Behaviour:
    """How a model answers. Shares are of its requests, spread evenly: at 0.25 every fourth one is hit. Times in seconds."""

    first_token_seconds: float = 0.0
    chunk_seconds: float = 0.0
    chunks: int = 3
    text: str = ""  # of a whole answer; empty: the model's name
    error_share: float = 0.0  # answered 500 before the first byte
    cut_share: float = 0.0  # the connection is closed in the middle of the stream
    stream_error_share: float = 0.0  # vLLM's way to fail late: an error event, then [DONE], status 200
    cold_requests: int = 0  # so many first ones take cold_seconds more to their first token
    cold_seconds: float = 0.0
    loadable: bool = True


@dataclass(frozen=True)
class Asked:
    """One completion request as it arrived."""

    path: str
    model: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeEngine:
    """`models` can be changed while it runs; `requests` counts completions by the name that they asked for.

    `adapters` is a folder in which more of them are found by name, as vLLM's resolver does. `says` gives the whole text of a
    streamed answer, None where the model's name will do.
    """

    url: str = ""
    models: dict[str, Behaviour] = field(default_factory=lambda: {BASE: Behaviour()})
    asked: list[Asked] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    unloaded: list[str] = field(default_factory=list)
    adapters: Path | None = None
    says: Callable[[str, Any], str | None] = lambda model, messages: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        with self.lock:
            self.asked.clear()
            self.paths.clear()
            self.requests.clear()
            self.unloaded.clear()

    def find(self, model: str) -> Behaviour | None:
        found = self.models.get(model)
        if found is None and self.adapters is not None and (self.adapters / model).is_dir():
            found = self.models[model] = Behaviour()
        return found

    def count(self, asked: Asked) -> int:
        """Keeps the request; its ordinal number among those of its model, from 1."""
        with self.lock:
            self.asked.append(asked)
            self.requests[asked.model] += 1
            return self.requests[asked.model]


def is_hit(ordinal: int, share: float) -> bool:
    return int(ordinal * share) > int((ordinal - 1) * share)


def _error(message: str, kind: str, code: int) -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: FakeEngine

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # a client that gave up is no error of the engine
            self.close_connection = True

    def do_GET(self) -> None:
        path = self._note_path()
        if path == "/v1/models":
            card = {"object": "model", "owned_by": "vllm", "max_model_len": MAX_MODEL_LEN}
            self._json({"object": "list", "data": [{"id": name, **card} for name in self.engine.models]})
        elif path == "/metrics":
            self._send(METRICS.encode(), "text/plain")
        elif path in ("/health", "/version"):
            self._json({"version": "0.32.0"})
        else:
            self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        path = self._note_path()
        body = self._read()
        try:
            asked = json.loads(body)
        except ValueError:
            return self._json(_error("not JSON", "BadRequestError", 400), 400)
        if path in COMPLETIONS:
            return self._complete(path, asked, body)
        if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            return self._adapter(path, asked)
        return self._json({"detail": "Not Found"}, 404)

    def do_PUT(self) -> None:
        self._note_path()
        self._read()
        self._json({"detail": "Method Not Allowed"}, 405)

    def _note_path(self) -> str:
        with self.engine.lock:
            self.engine.paths[self.path] += 1
        return urlsplit(self.path).path

    def _read(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _adapter(self, path: str, asked: Json) -> None:
        name = asked["lora_name"]
        if path == "/v1/load_lora_adapter":
            self.engine.models[name] = Behaviour()
        elif self.engine.models.pop(name, None) is None:
            return self._json(_error(f"The lora adapter '{name}' cannot be found.", "NotFoundError", 404), 404)
        else:
            self.engine.unloaded.append(name)
        return self._json({"message": "Success"})

    def _complete(self, path: str, asked: Json, body: bytes) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        ordinal = self.engine.count(Asked(path, str(asked.get("model")), headers, body))
        behaviour = self.engine.find(asked.get("model", ""))
        if behaviour is None or not behaviour.loadable:
            said = f"The model `{asked.get('model')}` does not exist."
            return self._json(_error(said, "NotFoundError", 404), 404)
        if is_hit(ordinal, behaviour.error_share):
            return self._json(_error("the engine failed", "InternalServerError", 500), 500)
        cold = behaviour.cold_seconds if ordinal <= behaviour.cold_requests else 0.0
        wait = behaviour.first_token_seconds + cold
        if asked.get("stream"):
            return self._stream(path, asked, behaviour, ordinal, wait)
        time.sleep(wait)
        return self._json(_whole(path, asked, behaviour.text))

    def _stream(self, path: str, asked: Json, behaviour: Behaviour, ordinal: int, wait: float) -> None:
        """As vLLM does: headers at once, the first event with the first token."""
        model = asked["model"]
        said = self.engine.says(model, asked.get("messages"))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        time.sleep(wait)
        for number in range(behaviour.chunks):
            if number:
                time.sleep(behaviour.chunk_seconds)
            if number == behaviour.chunks // 2 and is_hit(ordinal, behaviour.cut_share):
                self.close_connection = True
                return
            text = model if said is None else said if number == 1 else ""
            self._event(json.dumps(_chunk(path, model, number, text)))
        if is_hit(ordinal, behaviour.stream_error_share):
            self._event(json.dumps(_error("the engine failed late", "BadRequestError", 400)))
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._event(json.dumps({**_chunk(path, model, 0, ""), "choices": [], "usage": USAGE}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _json(self, content: Json, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def _whole(path: str, asked: Json, said: str = "") -> Json:
    model = asked["model"]
    said = said or model
    if path == "/v1/embeddings":
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
        return {"object": "list", "model": model, "data": [vector], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    choice: Json = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if "function" in str(asked.get("tools")):
        function = {"name": asked["tools"][0]["function"]["name"], "arguments": '{"team": "billing"}'}
        call = {"id": "call-1", "type": "function", "function": function}
        choice |= {
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        }
    elif path == "/v1/completions":
        choice["text"] = model
    else:
        choice["message"] = {"role": "assistant", "content": said}
    kind = "text_completion" if path == "/v1/completions" else "chat.completion"
    return {"id": "x", "object": kind, "created": 0, "model": model, "choices": [choice], "usage": USAGE}


def _chunk(path: str, model: str, number: int, text: str) -> Json:
    choice: Json = {"index": 0, "finish_reason": None, "logprobs": None}
    text = "" if number == 0 else text
    if path == "/v1/completions":
        choice["text"] = text
    else:
        choice["delta"] = {"role": "assistant", "content": text} if number == 0 else {"content": text}
    kind = "text_completion" if path == "/v1/completions" else "chat.completion.chunk"
    return {"id": "x", "object": kind, "created": 0, "model": model, "choices": [choice]}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False  # idle keep-alive connections would hold it


@contextmanager
def running_engine(host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeEngine]:
    """On a free loopback port, or where it is told; its url has no /v1."""
    engine = FakeEngine()
    server = _Server((host, port), type("Handler", (_Handler,), {"engine": engine}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    engine.url = f"http://{host}:{server.server_port}"
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def engine_process() -> Iterator[FakeEngine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def engine(engine_process: FakeEngine) -> FakeEngine:
    """The session's engine with nothing asked yet and the base model alone."""
    engine_process.models.clear()
    engine_process.models[BASE] = Behaviour()
    engine_process.forget()
    return engine_process
