"""The HTTP API and the page: search, an answer as server-sent events, and a passage in its place. One tenant.

`POST /v1/search`, `POST /v1/ask`, `GET /v1/chunks/ID`, `GET /health`, `GET /`. A request may bring an `x-request-id`; it is
sent on to the embedder and the model, and back.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rag.answer import to_sources
from rag.ask import Asked, Chat, find, stream
from rag.embed import Embedder
from rag.generation import require_live
from rag.schema import Connection
from rag.search import Filter, neighbours

PAGE = Path(__file__).with_name("page.html")
MAX_BODY_BYTES = 64 << 10
LOOPBACK = ("127.0.0.1", "localhost")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Backend:
    """What the API needs, made anew for each request; the request's id is theirs to send on."""

    tenant: str
    connect: Callable[[], AbstractContextManager[Connection]]
    embedder: Callable[[str], Embedder]
    chat: Callable[[str], Chat]
    told: tuple[type[Exception], ...]  # errors whose message a person is to read; the rest is a fault of the program


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str = Field(max_length=8000)


class Question(BaseModel):
    """The body of a search or a question."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=2000)
    k: int = Field(4, ge=1, le=50)
    kinds: tuple[str, ...] = ()
    under: str = ""
    before: tuple[Turn, ...] = Field((), max_length=8)

    def asked(self, tenant: str, request_id: str) -> Asked:
        previous = next((turn.content for turn in reversed(self.before) if turn.role == "user"), "")
        return Asked(
            self.question, tenant, self.k, Filter(self.kinds, self.under), previous=previous, request_id=request_id,
            before=tuple({"role": turn.role, "content": turn.content} for turn in self.before),
        )  # fmt: skip


def make_app(backend: Backend, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """`hosts` are the names it may be asked by: a page elsewhere cannot reach it by a name of its own."""

    async def ask(request: Request) -> Response:
        asked = await _question(request, backend.tenant)
        events = _events(asked, backend)
        return StreamingResponse(events, media_type="text/event-stream", headers=_back(asked.request_id))

    async def search(request: Request) -> Response:
        asked = await _question(request, backend.tenant)
        return await run_in_threadpool(_search, asked, backend)

    async def chunk(request: Request) -> Response:
        return await run_in_threadpool(_chunk, request.path_params["id"], backend)

    async def page(request: Request) -> Response:
        return FileResponse(PAGE, media_type="text/html", headers=_HEADERS)

    async def health(request: Request) -> Response:
        return Response()

    routes = [
        Route("/", page),
        Route("/health", health),
        Route("/v1/ask", ask, methods=["POST"]),
        Route("/v1/search", search, methods=["POST"]),
        Route("/v1/chunks/{id}", chunk),
    ]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    return Starlette(routes=routes, middleware=[guard], exception_handlers={_BadQuestion: _refuse})


class _BadQuestion(Exception):
    """The request's body is not what is asked for."""


async def _refuse(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _question(request: Request, tenant: str) -> Asked:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise _BadQuestion(f"the request has more than {MAX_BODY_BYTES} bytes")
    given = request.headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    try:
        return Question.model_validate_json(bytes(body)).asked(tenant, request_id)
    except ValidationError as error:
        first = error.errors()[0]
        raise _BadQuestion(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error


def _events(asked: Asked, backend: Backend) -> Iterator[str]:
    """An error after the first event can be told by an event alone."""
    try:
        with backend.connect() as conn:
            embedder, chat = backend.embedder(asked.request_id), backend.chat(asked.request_id)
            for step in stream(asked, conn=conn, embedder=embedder, chat=chat):
                if step.sources:
                    yield _event("sources", [asdict(source) for source in step.sources])
                if step.delta:
                    yield _event("delta", step.delta)
                if step.answer:
                    yield _event("answer", asdict(step.answer))
    except backend.told as error:
        yield _event("error", {"message": str(error), "request_id": asked.request_id})


def _search(asked: Asked, backend: Backend) -> Response:
    try:
        with backend.connect() as conn:
            hits = find(asked, conn=conn, embedder=backend.embedder(asked.request_id))
    except backend.told as error:
        return JSONResponse({"error": str(error)}, 503, _back(asked.request_id))
    ranks = [{"vector_rank": hit.vector_rank, "text_rank": hit.text_rank} for hit in hits]
    found = [asdict(source) | rank for source, rank in zip(to_sources(hits), ranks, strict=True)]
    return JSONResponse({"hits": found}, headers=_back(asked.request_id))


def _chunk(chunk_id: str, backend: Backend) -> Response:
    try:
        with backend.connect() as conn:
            embedder = backend.embedder("")
            live = require_live(conn, backend.tenant, embedder.name, embedder.revision, embedder.dimension)
            found = neighbours(conn, live, chunk_id)
    except backend.told as error:
        return JSONResponse({"error": str(error)}, 503)
    if not found:
        return JSONResponse({"error": "there is no such passage"}, 404)
    passages: list[dict[str, Any]] = [{**asdict(chunk), "is_asked": chunk.id == chunk_id} for chunk in found]
    return JSONResponse({"source": found[0].source, "passages": passages})


def _back(request_id: str) -> dict[str, str]:
    return {"x-request-id": request_id, "cache-control": "no-store"}


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
