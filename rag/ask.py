"""Ask a question: embed it, search, have a model answer from what was found. One question, no conversation."""

from collections.abc import Callable
from typing import Any

import httpx
import psycopg

from rag.answer import Answer, Messages, build_messages, cite, select_hits
from rag.embed import Embedder
from rag.store import NotIndexed, require_embedder, search


class ChatUnavailable(Exception):
    """The chat endpoint cannot be reached or is overloaded: worth another try."""


class ChatRefused(Exception):
    """The chat endpoint answered, and the same request would fail again."""


def ask(
    question: str,
    *,
    conn: psycopg.Connection[Any],
    embedder: Embedder,
    chat: Callable[[Messages], str],
    k: int = 4,
    max_context_tokens: int = 1024,
) -> Answer:
    """Answer from the `k` best passages, as far as they fit in `max_context_tokens` (counted by the embedder).

    Raises NotIndexed when there is nothing to search, and EmbedderMismatch when the index is another model's.
    """
    require_embedder(conn, embedder)
    (vector,) = embedder.embed([question])
    hits = search(conn, vector, question, k)
    if not hits:
        raise NotIndexed("The index is empty, so there is nothing to answer from; index the documents first")
    shown = select_hits(hits, max_context_tokens, embedder.count_tokens)
    return cite(question, chat(build_messages(question, shown, max_context_tokens, embedder.count_tokens)), shown)


def openai_chat(base_url: str, model: str, *, client: httpx.Client, max_tokens: int) -> Callable[[Messages], str]:
    """A chat function for a server that speaks OpenAI's API; `base_url` with or without the final /v1.

    The function raises ChatUnavailable for what may pass (no connection, 429, 5xx) and ChatRefused for what will not.
    """
    url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"

    def chat(messages: Messages) -> str:
        body = {"model": model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        try:
            response = client.post(url, json=body)
        except httpx.TransportError as error:
            raise ChatUnavailable(f"{url}: {error}; check that the gateway runs at this address") from error
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise ChatUnavailable(f"{url} answered {response.status_code}: {response.text[:200]}; try again later")
        if not response.is_success:
            raise ChatRefused(
                f"{url} answered {response.status_code}: {response.text[:200]}; "
                f"check that it serves the model {model!r} and accepts your key"
            )
        return _content(response, url)

    return chat


def _content(response: httpx.Response, url: str) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise ChatRefused(f"{url} did not answer with a chat completion: {response.text[:200]}") from error
    if not isinstance(content, str) or not content.strip():
        raise ChatRefused(f"{url} answered without any text; raise max_tokens or look at the model's chat template")
    return content
