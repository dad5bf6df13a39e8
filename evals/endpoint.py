"""Asks an OpenAI-compatible endpoint what it serves, before a long run is started on it. Effect (HTTP).

It does not measure anything and does not retry: an endpoint that is down is reported in under two seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

ANSWER_S = 0.9  # for each look-up; connection and answer together stay under two seconds
COMPLETION_S = 60.0  # the first completion may compile kernels or load an adapter
PROBE_TOKENS = [1, 2, 3]  # any vocabulary has them


class EndpointUnreachable(Exception):
    """Nothing answers at the address, or it is no OpenAI endpoint."""


class ModelNotServed(Exception):
    """The endpoint answers and serves other models."""


class CompletionRefused(Exception):
    """The endpoint serves the model and does not complete what lm-eval sends: token ids, or with echo and log-probabilities."""


@dataclass(frozen=True)
class Served:
    """`base_url` ends in /v1. `engine_version` is "unreported" where the server has no /version."""

    base_url: str
    model: str
    engine: str
    engine_version: str


def probe(base_url: str, model: str) -> Served:
    """Look the model up. Raises EndpointUnreachable or ModelNotServed."""
    base_url = base_url.rstrip("/")
    if not base_url.endswith("/v1"):
        raise EndpointUnreachable(f"the endpoint {base_url} has to end in /v1, as OpenAI's base_url does")
    with _client() as client:
        cards = _cards(client, base_url)
        if model not in cards:
            raise ModelNotServed(
                f"{base_url} does not serve {model!r}; it serves {', '.join(sorted(cards)) or 'nothing'}. "
                "Load the model or the adapter first"
            )
        return Served(base_url, model, cards[model], _version(client, base_url.removesuffix("/v1")))


def probe_completion(served: Served) -> None:
    """Complete one token from token ids. Raises CompletionRefused with the endpoint's own words."""
    body = {"model": served.model, "prompt": PROBE_TOKENS, "max_tokens": 1, "temperature": 0}
    with _client() as client:
        try:
            answer = client.post(f"{served.base_url}/completions", json=body, timeout=COMPLETION_S)
            answer.raise_for_status()
            text = answer.json()["choices"][0]["text"]
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            words = error.response.text[:300] if isinstance(error, httpx.HTTPStatusError) else str(error)
            raise CompletionRefused(
                f"{served.base_url}/completions did not complete a prompt of token ids for {served.model!r}: {words}. "
                "lm-eval's local-completions needs it; vLLM has it"
            ) from error
    if not isinstance(text, str):
        raise CompletionRefused(f"{served.base_url}/completions answered {text!r} in place of text")


def probe_logprobs(served: Served) -> None:
    """Score a prompt, as tasks with answers to choose from need it: echo with a log-probability a token. Raises CompletionRefused."""
    body = {
        "model": served.model,
        "prompt": PROBE_TOKENS,
        "max_tokens": 1,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }
    with _client() as client:
        try:
            answer = client.post(f"{served.base_url}/completions", json=body, timeout=COMPLETION_S)
            answer.raise_for_status()
            found = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
            scored = sum(isinstance(value, float) for value in found)
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            words = error.response.text[:300] if isinstance(error, httpx.HTTPStatusError) else repr(error)
            raise CompletionRefused(
                f"{served.base_url}/completions gives no log-probabilities of a prompt for {served.model!r}: {words}. The task "
                "scores answers to choose from, which needs echo and logprobs; vLLM has them, or take a generate_until task"
            ) from error
    if scored < len(PROBE_TOKENS) - 1:  # the first token has none
        raise CompletionRefused(
            f"{served.base_url}/completions scored {scored} of {len(PROBE_TOKENS)} prompt tokens of {served.model!r}; the task "
            "needs all but the first: the endpoint ignores echo"
        )


def _client() -> httpx.Client:
    return httpx.Client(timeout=ANSWER_S, trust_env=False)  # a proxy of the environment must not answer for the engine


def _cards(client: httpx.Client, base_url: str) -> dict[str, str]:
    """Model names and who owns them (vLLM says "vllm")."""
    try:
        answer = client.get(f"{base_url}/models")
        answer.raise_for_status()
        return {str(card["id"]): str(card.get("owned_by", "unreported")) for card in answer.json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise EndpointUnreachable(
            f"{base_url}/models does not answer as an OpenAI endpoint ({error}); start the engine or mend the address"
        ) from error


def _version(client: httpx.Client, root: str) -> str:
    try:
        answer = client.get(f"{root}/version")
        return str(answer.json()["version"]) if answer.is_success else "unreported"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return "unreported"
