"""Indexing and asking with the parts that the settings name. The work is in rag/; no Prefect here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from rag.answer import Messages
from rag.ask import Chat
from rag.chat import openai_chat, served_models
from rag.corpus import find_files
from rag.embed import Embedder
from rag.generation import Precision
from rag.git import copy_repository, parse_address
from rag.index import IndexResult, Progress, index_files, quiet
from rag.schema import Connection
from tasks.embeddings import REQUEST_SECONDS, open_embedder
from tasks.gateway_keys import own_key
from tasks.settings import Settings
from tasks.stack.addresses import gateway_address, postgres_address

ANSWER_TOKENS = 256
DATABASE = "rag"
DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class ModelUnnamed(Exception):
    """Several models are served, or none: say which is to answer."""


class TenantInvalid(Exception):
    """A tenant's name is short, lower case, and without spaces."""


@dataclass(frozen=True)
class Parts:
    """What a command works with; made by `open_parts`, and closed with it."""

    settings: Settings
    conn: Connection
    client: httpx.Client

    def embedder(self, request_id: str = "") -> Embedder:
        return open_embedder(self.settings, self.client, request_id)

    def chat(self, model: str | None, request_id: str = "", max_tokens: int = ANSWER_TOKENS) -> Chat:
        return open_chat(self.settings, self.client, model, request_id, max_tokens)


@contextmanager
def open_parts(settings: Settings) -> Iterator[Parts]:
    """Raises StackDown."""
    with connect(settings) as conn, httpx.Client(timeout=REQUEST_SECONDS) as client:
        yield Parts(settings, conn, client)


def connect(settings: Settings) -> Connection:
    """In autocommit, because a run commits what it has done so far. Raises StackDown, psycopg.OperationalError."""
    return psycopg.connect(f"{postgres_address(settings)}/{DATABASE}", autocommit=True)


def open_chat(
    settings: Settings, client: httpx.Client, model: str | None, request_id: str, max_tokens: int = ANSWER_TOKENS
) -> Chat:
    """Asks `model` through the gateway; the only one that it serves where it is None. Raises StackDown, and ModelUnnamed when it is asked."""
    url = gateway_address(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else own_key(settings.state / "gateway")

    def chat(messages: Messages) -> Iterator[str]:
        name = model or _only_model(url, client, key)
        asked = openai_chat(url, name, client=client, max_tokens=max_tokens, request_id=request_id, key=key)
        yield from asked(messages)

    return chat


def _only_model(url: str, client: httpx.Client, key: str | None) -> str:
    served = served_models(url, client=client, key=key)
    if len(served) != 1:
        raise ModelUnnamed(f"{url} serves {', '.join(served) or 'no model'}; name the one to ask by --model")
    return served[0]


def check_tenant(name: str) -> str:
    if not _TENANT.fullmatch(name):
        raise TenantInvalid(
            f"{name!r} is no tenant's name: up to 63 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit"
        )
    return name


def index_paths(
    parts: Parts,
    paths: tuple[Path, ...],
    tenant: str,
    *,
    precision: Precision = "vector",
    progress: Progress = quiet,
) -> IndexResult:
    """The tenant's index holds exactly these documents afterwards. Raises CorpusError, IndexBusy, EmbedderMismatch, …"""
    files = find_files(paths, root_of(paths))
    model = parts.embedder()
    return index_files(parts.conn, check_tenant(tenant), files, model, precision=precision, progress=progress)


def local_paths(settings: Settings, named: Sequence[str]) -> tuple[Path, ...]:
    """Paths as they are; of a repository's address its copy in the state folder. Raises CorpusRepositoryError."""
    addresses = [parse_address(one) for one in named]  # all are read before anything is fetched
    copies = settings.state / "corpora"
    return tuple(
        copy_repository(address, copies) if address else Path(one)
        for one, address in zip(named, addresses, strict=True)
    )


def root_of(paths: tuple[Path, ...]) -> Path:
    """The folder that sources are named from."""
    return Path(os.path.commonpath([(path if path.is_dir() else path.parent).absolute() for path in paths]))
