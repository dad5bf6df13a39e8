"""OpenAI's embeddings API for one local model: `python -m rag.embed_server FOLDER --port N`. Loopback only.

It serves `POST /v1/embeddings`, `GET /v1/models` (with the weights' sha256 as `revision`) and `GET /health`. One request
is computed at a time; others wait.
"""

from __future__ import annotations

import argparse
import base64
import json
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rag.embed import LocalEmbedder, TextTooLong

MAX_TEXTS = 256  # a request
MAX_BODY_BYTES = 8 << 20


def make_app(embedder: LocalEmbedder) -> Starlette:
    one_at_a_time = threading.Lock()

    def compute(texts: list[str]) -> list[Any]:
        with one_at_a_time:
            return list(embedder.embed(texts))

    async def embeddings(request: Request) -> Response:
        try:
            texts, as_base64 = _asked(await _body(request), embedder.name)
            vectors = await run_in_threadpool(compute, texts)
        except (_BadRequest, TextTooLong) as fault:
            status = fault.status if isinstance(fault, _BadRequest) else 400
            return JSONResponse({"error": {"message": str(fault), "type": "invalid_request_error"}}, status)
        tokens = sum(embedder.count_tokens(text) for text in texts)
        data = [{"object": "embedding", "index": i, "embedding": _encoded(v, as_base64)} for i, v in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": embedder.name, "data": data, "usage": usage})

    async def models(request: Request) -> Response:
        model = {
            "id": embedder.name, "object": "model", "owned_by": "local", "revision": embedder.revision,
            "dimension": embedder.dimension, "max_model_len": embedder.max_tokens,
        }  # fmt: skip
        return JSONResponse({"object": "list", "data": [model]})

    async def health(request: Request) -> Response:
        return Response()

    return Starlette(
        routes=[
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


class _BadRequest(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


async def _body(request: Request) -> Any:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise _BadRequest(f"the request has more than {MAX_BODY_BYTES} bytes; send fewer texts", 413)
    try:
        return json.loads(content)
    except ValueError as error:
        raise _BadRequest(f"the body is not JSON: {error}") from error


def _asked(body: Any, model: str) -> tuple[list[str], bool]:
    """The texts, and whether the vectors go back as base64."""
    if not isinstance(body, dict) or "input" not in body:
        raise _BadRequest("a JSON object with model and input is required")
    if body.get("model") != model:
        raise _BadRequest(f"the model {body.get('model')!r} is not served; {model!r} is", 404)
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _BadRequest("input must be a text or a list of texts, none of them empty")
    if len(texts) > MAX_TEXTS:
        raise _BadRequest(f"{len(texts)} texts in one request; at most {MAX_TEXTS} are taken", 413)
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise _BadRequest(f"encoding_format {encoding!r} is not known; float and base64 are")
    return texts, encoding == "base64"


def _encoded(vector: Any, as_base64: bool) -> str | list[float]:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    embedder = LocalEmbedder(asked.folder)
    embedder.embed(["the weights are read before the first request comes"])
    uvicorn.run(make_app(embedder), host="127.0.0.1", port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
