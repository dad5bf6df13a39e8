"""A chat function for any server that speaks OpenAI's API, streamed. One request; no retries once text has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from rag.answer import Messages
from rag.ask import Chat


class ChatUnavailable(Exception):
    """The chat endpoint cannot be reached or is overloaded: worth another try."""


class ChatRefused(Exception):
    """The chat endpoint answered, and the same request would fail again."""


def openai_chat(
    base_url: str, model: str, *, client: httpx.Client, max_tokens: int, request_id: str = "", key: str | None = None
) -> Chat:
    """`base_url` with or without the final /v1. `request_id` goes with the request, so that logs can be joined.

    The function raises ChatUnavailable for what may pass (no connection, 429, 5xx) and ChatRefused for what will not.
    """
    url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
    headers = {"x-request-id": request_id} if request_id else {}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}

    def chat(messages: Messages) -> Iterator[str]:
        body = {"model": model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens, "stream": True}
        try:
            with client.stream("POST", url, json=body, headers=headers) as response:
                _require_success(response, url, model)
                yield from _pieces(response, url)
        except httpx.TransportError as error:
            raise ChatUnavailable(f"{url}: {error}; check that the gateway runs at this address") from error

    return chat


def _require_success(response: httpx.Response, url: str, model: str) -> None:
    if response.is_success:
        return
    said = response.read().decode(errors="replace")[:200]
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise ChatUnavailable(f"{url} answered {response.status_code}: {said}; try again later")
    raise ChatRefused(
        f"{url} answered {response.status_code}: {said}; check that it serves the model {model!r} and accepts your key"
    )


def _pieces(response: httpx.Response, url: str) -> Iterator[str]:
    """The text of each server-sent event, up to [DONE]."""
    seen = False
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        if text := _text(data, url):
            seen = True
            yield text
    if not seen:
        raise ChatRefused(f"{url} answered without any text; raise max_tokens or look at the model's chat template")


def _text(data: str, url: str) -> str:
    try:
        event: Any = json.loads(data)
        if "error" in event:
            raise ChatUnavailable(f"{url} broke off: {str(event['error'])[:200]}; try again")
        choices = event["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ChatRefused(f"{url} did not answer with a chat completion: {data[:200]}") from error


def served_models(base_url: str, *, client: httpx.Client, key: str | None = None) -> tuple[str, ...]:
    """Raises ChatUnavailable."""
    url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/models"
    try:
        answer = client.get(url, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer.raise_for_status()
        return tuple(str(one["id"]) for one in answer.json()["data"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ChatUnavailable(f"{url}: {error}; check that the gateway runs at this address") from error
