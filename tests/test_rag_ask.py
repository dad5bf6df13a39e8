"""A question through a real Postgres and a real HTTP server that speaks OpenAI's chat API."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psycopg
import pytest

from rag.answer import Messages
from rag.ask import ChatRefused, ChatUnavailable, ask, openai_chat
from rag.chunk import Document, chunk_markdown
from rag.embed import Embedder, LocalEmbedder
from rag.store import EmbedderMismatch, NotIndexed, index, migrate
from tests.fix_rag import WordEmbedder

DOCUMENTS = (
    Document("docs/rollback.md", "# Rollback\n\n`liftlock rollback NAME` undoes a release with one command."),
    Document("docs/gate.md", "# Gate\n\nThe gate is inconclusive when a dataset has too few items."),
    Document("docs/fit.md", "# Fit\n\nThe preflight compares a model's memory with what the GPU has."),
)
MESSAGES: Messages = ({"role": "user", "content": "Hello"},)


@dataclass
class Endpoint:
    """What the server answers, and what it was asked."""

    status: int = 200
    body: bytes = b""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def say(self, content: str | None) -> None:
        self.body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.requests.append((self.path, json.loads(body)))
            self.send_response(endpoint.status)
            self.end_headers()
            self.wfile.write(endpoint.body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()


@pytest.fixture
def chat(endpoint: Endpoint) -> Iterator[Callable[[Messages], str]]:
    with httpx.Client(timeout=5) as client:
        yield openai_chat(endpoint.url, "smollm2", client=client, max_tokens=32)


@contextmanager
def indexed(database: str, embedder: Embedder) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as conn:
        migrate(conn, embedder)
        index(conn, {d.source: chunk_markdown(d, embedder.count_tokens) for d in DOCUMENTS}, embedder.embed)
        yield conn


@pytest.mark.parametrize(
    ("question", "source"),
    [
        ("How do I go back to the version before?", "docs/rollback.md"),
        ("What if the eval has not enough examples?", "docs/gate.md"),
        ("Will my weights fit on the card?", "docs/fit.md"),
    ],
)
def test_a_question_is_answered_with_its_source(
    database: str,
    local_embedder: LocalEmbedder,
    endpoint: Endpoint,
    chat: Callable[[Messages], str],
    question: str,
    source: str,
) -> None:
    endpoint.say("So it is [1] [9].")
    with indexed(database, local_embedder) as conn:
        answer = ask(question, conn=conn, embedder=local_embedder, chat=chat, k=2)
    assert (answer.text, len(answer.sources)) == ("So it is [1].", 2)
    assert (answer.sources[0].source, answer.sources[0].is_cited) == (source, True)
    ((path, body),) = endpoint.requests
    assert (path, body["model"], body["temperature"], body["max_tokens"]) == ("/v1/chat/completions", "smollm2", 0, 32)
    assert answer.sources[0].text in body["messages"][1]["content"]
    assert body["messages"][1]["content"].endswith(f"Question: {question}")


def test_only_what_the_model_was_shown_is_a_source(database: str, chat: Any, endpoint: Endpoint) -> None:
    embedder = WordEmbedder()
    endpoint.say("Yes.")
    with indexed(database, embedder) as conn:
        answer = ask("one command", conn=conn, embedder=embedder, chat=chat, k=3, max_context_tokens=40)
    assert [source.source for source in answer.sources] == ["docs/rollback.md"]
    assert "docs/gate.md" not in json.dumps(endpoint.requests)


def test_without_an_index_no_model_is_asked(database: str, chat: Any, endpoint: Endpoint) -> None:
    embedder = WordEmbedder()
    with psycopg.connect(database) as conn:
        with pytest.raises(NotIndexed, match="holds no index"):
            ask("one command", conn=conn, embedder=embedder, chat=chat)
        migrate(conn, embedder)
        with pytest.raises(NotIndexed, match="index is empty"):
            ask("one command", conn=conn, embedder=embedder, chat=chat)
        with pytest.raises(EmbedderMismatch):
            ask("one command", conn=conn, embedder=WordEmbedder(revision="2"), chat=chat)
    assert endpoint.requests == []


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(endpoint: Endpoint, suffix: str) -> None:
    endpoint.say("Hello.")
    with httpx.Client() as client:
        assert openai_chat(endpoint.url + suffix, "m", client=client, max_tokens=8)(MESSAGES) == "Hello."
    assert endpoint.requests[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_unavailable(endpoint: Endpoint, chat: Callable[[Messages], str], status: int) -> None:
    endpoint.status, endpoint.body = status, b"busy"
    with pytest.raises(ChatUnavailable, match=rf"{endpoint.url}/v1/chat/completions answered {status}: busy"):
        chat(MESSAGES)


def test_an_address_where_nothing_listens_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with httpx.Client() as client, pytest.raises(ChatUnavailable, match=f"{url}.*check that the gateway runs"):
            openai_chat(url, "m", client=client, max_tokens=8)(MESSAGES)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_would_fail_again_is_refused(endpoint: Endpoint, chat: Callable[[Messages], str], status: int) -> None:
    endpoint.status, endpoint.body = status, b"no such model"
    with pytest.raises(ChatRefused, match=f"answered {status}: no such model; check that it serves .* 'smollm2'"):
        chat(MESSAGES)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_a_reply_that_is_no_completion_is_refused(
    endpoint: Endpoint, chat: Callable[[Messages], str], body: bytes
) -> None:
    endpoint.body = body
    with pytest.raises(ChatRefused, match="did not answer with a chat completion"):
        chat(MESSAGES)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_reply_without_text_is_refused(
    endpoint: Endpoint, chat: Callable[[Messages], str], content: str | None
) -> None:
    endpoint.say(content)
    with pytest.raises(ChatRefused, match="without any text"):
        chat(MESSAGES)
