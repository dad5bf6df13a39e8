"""The question page on loopback: rag/api.py with the parts that the settings name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psycopg
import uvicorn

from rag.answer import ContextTooSmall
from rag.api import Backend, make_app
from rag.chat import ChatRefused, ChatUnavailable
from rag.embed import EmbedderUnavailable
from rag.embed_http import EmbedderBusy, EmbedderRefused
from rag.generation import EmbedderMismatch, NotIndexed
from rag.schema import Connection
from rag.vectors import EmbeddingInvalid
from tasks.embeddings import REQUEST_SECONDS, EmbeddingsNotReady, open_embedder
from tasks.rag import ModelUnnamed, check_tenant, connect, open_chat
from tasks.settings import Settings
from tasks.stack.addresses import StackDown

TOLD = (
    NotIndexed, EmbedderMismatch, EmbedderUnavailable, EmbedderBusy, EmbedderRefused, EmbeddingInvalid, EmbeddingsNotReady,
    ChatUnavailable, ChatRefused, ContextTooSmall, ModelUnnamed, StackDown,
)  # fmt: skip


class PageUnavailable(Exception):
    """The database of the documents cannot be reached."""


def serve(settings: Settings, tenant: str, model: str | None, port: int, say: Callable[[str], None]) -> None:
    """Until it is interrupted. Raises OSError where the port is taken."""
    with httpx.Client(timeout=REQUEST_SECONDS) as client, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        say(f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = make_app(backend_of(settings, check_tenant(tenant), model, client))
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def backend_of(settings: Settings, tenant: str, model: str | None, client: httpx.Client) -> Backend:
    @contextmanager
    def connected() -> Iterator[Connection]:
        try:
            with connect(settings) as conn:
                yield conn
        except psycopg.OperationalError as error:
            raise PageUnavailable(f"the documents' database does not answer: {str(error).strip()}") from error

    return Backend(
        tenant,
        connected,
        lambda request_id: open_embedder(settings, client, request_id),
        lambda request_id: open_chat(settings, client, model, request_id),
        (*TOLD, PageUnavailable),
    )
