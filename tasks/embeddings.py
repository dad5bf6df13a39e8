"""The embedder that the settings name; without one, the local model's server, started by the first text to be embedded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import httpx

from rag.embed import Embedder, LocalEmbedder, token_counter
from rag.embed_http import HttpEmbedder, Server
from rag.generation import EmbedderMismatch
from rag.vectors import Vector
from tasks.settings import Settings
from tasks.setup import EMBEDDING_MODEL
from tasks.stack.addresses import StackDown, local_address
from tasks.stack.control import answers
from tasks.stack.supervisor import Supervisor

PART = "embeddings"
READY_SECONDS = 180
REQUEST_SECONDS = 120


class EmbeddingsNotReady(Exception):
    """The local embeddings server did not answer in time."""


def open_embedder(settings: Settings, client: httpx.Client, request_id: str = "") -> Embedder:
    """Raises EmbedderUnavailable, EmbedderBusy."""
    folder = settings.models / EMBEDDING_MODEL
    if settings.embeddings_url is None:
        return StackEmbedder(settings, client, folder, request_id)
    return HttpEmbedder(
        _server(settings, settings.embeddings_url, client),
        settings.embeddings_model,
        token_counter(settings.embeddings_tokenizer or folder / "tokenizer.json"),
        settings.embeddings_revision,
        settings.embeddings_max_tokens,
        request_id,
    )


class StackEmbedder:
    """Names and counts from the model's folder, so that an unchanged corpus starts no server; vectors from the server."""

    def __init__(self, settings: Settings, client: httpx.Client, folder: Path, request_id: str = "") -> None:
        self._settings, self._client, self._request_id = settings, client, request_id
        local = LocalEmbedder(folder)
        self.name, self.dimension, self.max_tokens = local.name, local.dimension, local.max_tokens
        self.revision, self.count_tokens = local.revision, local.count_tokens

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Raises StackDown, EmbeddingsNotReady, EmbedderBusy, EmbedderRefused, EmbeddingInvalid, EmbedderMismatch."""
        return self._served.embed(texts)

    @cached_property
    def _served(self) -> HttpEmbedder:
        server = _server(self._settings, start(self._settings, self._client), self._client)
        served = HttpEmbedder(server, self.name, self.count_tokens, request_id=self._request_id)
        if served.revision != self.revision:
            raise EmbedderMismatch(
                f"The embeddings server serves {self.name} with weights {served.revision[:12]}, and the model's folder "
                f"holds {self.revision[:12]}; run `liftlock down` and `liftlock up`"
            )
        return served


def start(settings: Settings, client: httpx.Client) -> str:
    """The local server's address, once it answers. Raises StackDown, EmbeddingsNotReady."""
    url = local_address(settings, PART)
    if answers(f"{url}/health", client):
        return url
    supervisor = Supervisor(settings.state)
    if PART not in supervisor.states():
        raise StackDown("the local stack is not running, so it cannot embed; run `liftlock up`")
    supervisor.start(PART)
    deadline = time.monotonic() + READY_SECONDS
    while not answers(f"{url}/health", client):
        if time.monotonic() > deadline:
            raise EmbeddingsNotReady(f"no answer within {READY_SECONDS} s; see `liftlock logs {PART}`")
        time.sleep(0.2)
    return url


def _server(settings: Settings, url: str, client: httpx.Client) -> Server:
    return Server(url, client, settings.api_key.get_secret_value() if settings.api_key else None)
