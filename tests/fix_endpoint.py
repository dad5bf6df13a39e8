"""A small OpenAI endpoint on a real socket, in place of vLLM: answers are scripted, and what was asked is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class ScriptedEndpoint:
    """`complete` answers a prompt's token ids, `chat` a list of messages; a RuntimeError in one becomes a 500.

    `scores` are the log-probabilities of a prompt's tokens, for requests with echo; None says nothing of them.
    """

    models: tuple[str, ...] = ("base", "candidate")
    complete: Callable[[str, list[int]], str] = lambda model, ids: ""
    chat: Callable[[str, list[Json]], str] = lambda model, messages: ""
    scores: Callable[[list[int]], list[float | None]] | None = None
    tokenize: Callable[[list[Json]], list[int]] | None = None
    engine_version: str | None = "0.32.0"
    asked: list[tuple[str, Json]] = field(default_factory=list)
    base_url: str = ""

    def get(self, path: str) -> Json | None:
        if path == "/v1/models":
            cards = [{"id": name, "object": "model", "owned_by": "vllm"} for name in self.models]
            return {"object": "list", "data": cards}
        if path == "/version" and self.engine_version:
            return {"version": self.engine_version}
        return None

    def _logprobs(self, body: Json, ids: list[int]) -> Json:
        if not body.get("echo") or self.scores is None:
            return {}
        values = self.scores(ids)
        tops = [{"t": value} for value in values]
        return {"logprobs": {"tokens": ["t"] * len(values), "token_logprobs": values, "top_logprobs": tops}}

    def post(self, path: str, body: Json) -> Json | None:
        self.asked.append((path, body))
        if path == "/v1/completions":
            batch = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            choices: list[Json] = [
                {"index": i, "text": self.complete(body["model"], ids), **self._logprobs(body, ids)}
                for i, ids in enumerate(batch)
            ]
            return {"object": "text_completion", "model": body["model"], "choices": choices}
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": self.chat(body["model"], body["messages"])}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        if path == "/tokenize" and self.tokenize:
            return {"tokens": self.tokenize(body["messages"])}
        return None


@contextmanager
def serving(endpoint: ScriptedEndpoint) -> Iterator[ScriptedEndpoint]:
    """Serve it on a free loopback port; its base_url ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(endpoint.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                answer = endpoint.post(self.path, body)
                self._stream(answer) if body.get("stream") and answer else self._answer(answer)
            except RuntimeError as error:
                self._answer({"error": {"message": str(error)}}, status=500)

        def _stream(self, answer: Json) -> None:
            """The whole answer of a chat as one chunk; the connection's end is the stream's."""
            text = answer["choices"][0]["message"]["content"]
            choices = [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            event = json.dumps({"model": answer["model"], "choices": choices})
            self.wfile.write(f"data: {event}\n\ndata: [DONE]\n\n".encode())

        def _answer(self, content: Json | None, status: int = 200) -> None:
            data = json.dumps(content if content is not None else {"detail": "Not Found"}).encode()
            self.send_response(404 if content is None else status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            with suppress(ConnectionError):  # a client that gave up is no error of the endpoint
                self.end_headers()
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    endpoint.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
