"""An embedder behind OpenAI's embeddings API: batched, patient with a busy server, and pinned to one model's weights.

The API says neither a model's revision nor its dimension. The local server does, in its list of models; for any other
server the revision is the caller's to name, and the dimension is measured.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from rag.embed import EmbedderUnavailable
from rag.vectors import Vector, checked

BATCH = 32  # texts a request: what text-embeddings-inference takes by default
TRIES = 5
BUSY = (429, 500, 502, 503, 504)
MAX_WAIT_SECONDS = 30.0


class EmbedderBusy(Exception):
    """The server cannot be reached or is overloaded, after several tries: worth another run."""


class EmbedderRefused(Exception):
    """The server answered, and the same request would fail again."""


@dataclass(frozen=True)
class Server:
    """Where and how to ask. `url` with or without the final /v1; `sleep` takes seconds."""

    url: str
    client: httpx.Client
    key: str | None = None
    sleep: Callable[[float], None] = time.sleep

    def ask(self, method: str, path: str, body: Any = None, request_id: str | None = None) -> Any:
        """The JSON answer. Raises EmbedderBusy, EmbedderRefused."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= {"x-request-id": request_id} if request_id else {}
        address = f"{self.url.rstrip('/').removesuffix('/v1')}/v1/{path}"
        for attempt in range(TRIES):
            try:
                answer = self.client.request(method, address, json=body, headers=headers)
            except httpx.TransportError as error:
                if attempt == TRIES - 1:
                    raise EmbedderBusy(f"{address}: {error}; check that the embeddings server runs there") from error
                self.sleep(2.0**attempt / 4)
                continue
            if answer.status_code not in BUSY:
                return _read(answer, address)
            if attempt < TRIES - 1:
                self.sleep(_wait_of(answer, attempt))
        raise EmbedderBusy(
            f"{address} answered {answer.status_code} {TRIES} times: {answer.text[:200]}; try again later"
        )


class HttpEmbedder:
    """`revision` and `dimension` as the server says where they are None. Raises EmbedderUnavailable, EmbedderBusy."""

    def __init__(
        self,
        server: Server,
        name: str,
        count_tokens: Callable[[str], int],
        revision: str | None = None,
        max_tokens: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self._server, self._request_id = server, request_id
        self.name, self.count_tokens = name, count_tokens
        listed = server.ask("GET", "models", request_id=request_id).get("data", [])
        model = next((one for one in listed if one.get("id") == name), None)
        if model is None:
            have = ", ".join(str(one.get("id")) for one in listed) or "none"
            raise EmbedderUnavailable(f"{server.url} serves no model {name!r}; it serves {have}: name one of them")
        said = revision or model.get("revision")
        if not said:
            raise EmbedderUnavailable(
                f"{server.url} does not say the revision of {name}; name it by LIFTLOCK_EMBEDDINGS_REVISION, "
                "so that vectors of other weights are never mixed in"
            )
        self.revision: str = said
        self.max_tokens: int = max_tokens or model.get("max_model_len") or 512
        self.dimension: int = model.get("dimension") or len(self._ask(["dimension"])[0])

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector a text. Raises EmbeddingInvalid, EmbedderBusy, EmbedderRefused."""
        found: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            found += checked(self._ask(batch), batch, self.dimension, self.name)
        return found

    def _ask(self, texts: list[str]) -> list[Vector]:
        body = {"model": self.name, "input": texts, "encoding_format": "base64"}
        answer = self._server.ask("POST", "embeddings", body, self._request_id)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            return [_vector(row["embedding"]) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise EmbedderRefused(f"{self._server.url} did not answer with embeddings: {str(answer)[:200]}") from error


def _vector(embedding: Any) -> Vector:
    """Servers that do not know base64 send numbers."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(embedding, dtype=np.float32)


def _wait_of(answer: httpx.Response, attempt: int) -> float:
    """Seconds: what the server asks for, else twice as long each time."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), MAX_WAIT_SECONDS) if asked.isdecimal() else 2.0**attempt / 4


def _read(answer: httpx.Response, address: str) -> Any:
    if not answer.is_success:
        raise EmbedderRefused(
            f"{address} answered {answer.status_code}: {answer.text[:200]}; check the model's name and your key"
        )
    try:
        return answer.json()
    except ValueError as error:
        raise EmbedderRefused(f"{address} did not answer with JSON: {answer.text[:200]}") from error
