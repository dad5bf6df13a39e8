"""An endpoint is looked up before a long run: what is wrong is said in words, in under two seconds."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from evals.endpoint import (
    CompletionRefused,
    EndpointUnreachable,
    ModelNotServed,
    Served,
    probe,
    probe_completion,
    probe_logprobs,
)
from tests.fix_endpoint import ScriptedEndpoint, serving


def test_a_served_model_is_found_with_its_engine() -> None:
    with serving(ScriptedEndpoint()) as endpoint:
        assert probe(endpoint.base_url + "/", "base") == Served(endpoint.base_url, "base", "vllm", "0.32.0")


def test_an_engine_without_a_version_is_unreported() -> None:
    with serving(ScriptedEndpoint(engine_version=None)) as endpoint:
        assert probe(endpoint.base_url, "base").engine_version == "unreported"


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    with (
        serving(ScriptedEndpoint(models=("base", "router-v2"))) as endpoint,
        pytest.raises(ModelNotServed, match="does not serve 'router-v3'; it serves base, router-v2"),
    ):
        probe(endpoint.base_url, "router-v3")


def test_a_closed_port_is_reported_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        started = time.monotonic()
        with pytest.raises(EndpointUnreachable, match="start the engine or mend the address"):
            probe(address, "base")
    assert time.monotonic() - started < 2


def test_a_silent_port_is_reported_in_under_two_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the connection is made; no answer ever comes
        started = time.monotonic()
        with pytest.raises(EndpointUnreachable, match="timed out"):
            probe(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "base")
    assert time.monotonic() - started < 2


def test_an_address_without_v1_is_refused() -> None:
    with pytest.raises(EndpointUnreachable, match="has to end in /v1"):
        probe("http://127.0.0.1:1/", "base")


def test_something_else_than_an_openai_endpoint_is_refused() -> None:
    with serving(ScriptedEndpoint()) as endpoint:
        root = endpoint.base_url.removesuffix("/v1")
        with pytest.raises(EndpointUnreachable, match="does not answer as an OpenAI endpoint"):
            probe(f"{root}/other/v1", "base")


def test_a_completion_of_token_ids_is_tried() -> None:
    with serving(ScriptedEndpoint()) as endpoint:
        probe_completion(probe(endpoint.base_url, "base"))
    path, body = endpoint.asked[-1]
    assert (path, body["prompt"], body["max_tokens"]) == ("/v1/completions", [1, 2, 3], 1)


def test_an_endpoint_that_cannot_complete_is_quoted() -> None:
    def broken(model: str, ids: list[int]) -> str:
        raise RuntimeError("the engine is dead")

    with serving(ScriptedEndpoint(complete=broken)) as endpoint:
        served = probe(endpoint.base_url, "base")
        with pytest.raises(CompletionRefused, match="the engine is dead"):
            probe_completion(served)


def test_an_endpoint_that_scores_prompts_may_be_asked_tasks_with_choices() -> None:
    with serving(ScriptedEndpoint(scores=lambda ids: [None, *(-1.5 for _ in ids[1:]), -0.1])) as endpoint:
        probe_logprobs(probe(endpoint.base_url, "base"))
    (asked,) = [body for path, body in endpoint.asked if path == "/v1/completions"]
    assert (asked["echo"], asked["logprobs"]) == (True, 1)


@pytest.mark.parametrize(
    ("scores", "words"),
    [(None, "gives no log-probabilities of a prompt for 'base'"), (lambda ids: [-0.1], "scored 1 of 3 prompt tokens")],
)
def test_an_endpoint_that_does_not_is_refused_with_what_to_do(scores: Any, words: str) -> None:
    with serving(ScriptedEndpoint(scores=scores)) as endpoint:
        served = probe(endpoint.base_url, "base")
        with pytest.raises(CompletionRefused, match=words):
            probe_logprobs(served)
