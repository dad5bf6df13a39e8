"""The question page on loopback: rag/api.py with the parts that the settings name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import uvicorn

from rag.answer import ContextTooSmall
from rag.api import LOOPBACK, Backend, make_app
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


class AddressTaken(Exception):
    """The page cannot listen there."""


@dataclass(frozen=True)
class Where:
    """Where the page listens, and the names besides loopback's that it may be asked by."""

    address: str
    port: int
    names: tuple[str, ...] = ()


def serve(settings: Settings, tenant: str, model: str | None, where: Where, say: Callable[[str], None]) -> None:
    """Until it is interrupted. Raises AddressTaken, TenantInvalid."""
    with httpx.Client(timeout=REQUEST_SECONDS) as client, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((where.address, where.port))
        except OSError as error:
            raise AddressTaken(
                f"{where.address}:{where.port}: {error.strerror}; choose another by --port, or 0 for a free one"
            ) from error
        app = make_app(backend_of(settings, check_tenant(tenant), model, client), (*LOOPBACK, *where.names))
        say(f"http://{where.address}:{listener.getsockname()[1]}")
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
