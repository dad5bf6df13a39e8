"""The real Envoy's chain of fallbacks: the next one is asked only before the first byte, and the answer says who gave it."""

import json
from pathlib import Path

import httpx
import pytest

from serving.gateway.drain import drained
from serving.gateway.envoy import VERSION_HEADER
from serving.gateway.model import Endpoint, Limits
from tests.fix_engine import BASE, Behaviour, FakeEngine, running_engine
from tests.fix_envoy import Envoy, running_envoy
from tests.test_serving_gateway_duties import logged

CHAT = "/v1/chat/completions"
STABLE, OTHER = "tickets-0a1b2c3d4e5f", "other/model"


def ask(envoy: Envoy, model: str = "tickets", **body: object) -> httpx.Response:
    content = {"messages": [{"role": "user", "content": 'the "model": "tickets"'}], "model": model, **body}
    return httpx.post(f"{envoy.url}{CHAT}", json=content, timeout=30)


def test_adapter_then_base_then_another_endpoint(engine: FakeEngine, tmp_path: Path) -> None:
    with running_engine() as other:
        other.models = {OTHER: Behaviour()}
        chain = (Endpoint(BASE, engine.url), Endpoint(OTHER, other.url))
        with running_envoy(tmp_path, engine.url, fallback=chain) as envoy:
            envoy.gateway.set_stable("tickets", STABLE)
            engine.models[STABLE] = Behaviour()
            assert served(ask(envoy)) == STABLE
            engine.models[STABLE] = Behaviour(error_share=1)
            answer = ask(envoy)
            assert served(answer) == BASE
            line = logged(envoy, answer.headers["x-request-id"])
            assert (line["version"], line["attempts"], line["status"]) == (BASE, 2, 200)
            assert json.loads(engine.asked[-1].body)["messages"][0]["content"] == 'the "model": "tickets"'
            engine.models.pop(STABLE)
            assert served(ask(envoy)) == BASE, "an adapter that the engine lost"
            engine.models[BASE] = Behaviour(error_share=1)
            assert served(ask(envoy)) == OTHER
            assert served(ask(envoy, BASE)) == OTHER
            assert served(ask(envoy, stream=True)) == OTHER
            other.models = {OTHER: Behaviour(error_share=1)}
            answer = ask(envoy)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")


def served(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    assert f'"model": "{answer.headers[VERSION_HEADER]}"' in answer.text
    return answer.headers[VERSION_HEADER]


def test_after_the_first_byte_nothing_is_asked_again(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url, fallback=(Endpoint(BASE, engine.url),)) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        engine.models[STABLE] = Behaviour(cut_share=1, chunk_seconds=0.2)
        with pytest.raises(httpx.RemoteProtocolError):
            ask(envoy, stream=True)
        assert engine.requests == {STABLE: 1}


def test_an_engine_that_is_down_or_hangs_is_replaced_by_the_other(engine: FakeEngine, tmp_path: Path) -> None:
    with running_engine() as other:
        other.models = {OTHER: Behaviour()}
        chain = (Endpoint(OTHER, other.url),)
        with running_envoy(tmp_path / "a", "http://127.0.0.1:1", fallback=chain) as envoy:
            envoy.gateway.set_stable("tickets", STABLE)
            assert served(ask(envoy)) == OTHER
        engine.models[STABLE] = Behaviour(first_token_seconds=5)
        with running_envoy(tmp_path / "b", engine.url, fallback=chain, limits=Limits(request_seconds=2)) as envoy:
            envoy.gateway.set_stable("tickets", STABLE)
            answer = ask(envoy)
            assert served(answer) == OTHER
            assert engine.requests[STABLE] == 1
            assert answer.elapsed.total_seconds() < 5  # the engine that hangs would have answered then


def test_a_request_that_the_engine_refuses_is_not_asked_again(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url, fallback=(Endpoint(BASE, engine.url),)) as envoy:
        assert httpx.post(f"{envoy.url}{CHAT}", content=b'{"model":"base-model", "x":,"y":1}').status_code == 400
        assert sum(engine.requests.values()) == 0


def test_the_counters_of_a_side_count_with_a_fallback_too(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url, fallback=(Endpoint(BASE, engine.url),)) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        engine.models[STABLE] = Behaviour()
        for _ in range(3):
            ask(envoy)
        assert envoy.gateway.counters("tickets", "stable")["upstream_rq_total"] == 3
        assert drained(envoy.gateway, [("tickets", "stable", None)], 5)


def test_further_models_have_engines_of_their_own(engine: FakeEngine, tmp_path: Path) -> None:
    with running_engine() as embedder:
        embedder.models = {"minilm": Behaviour()}
        with running_envoy(tmp_path, engine.url, endpoints=(Endpoint("minilm", embedder.url),)) as envoy:
            answer = httpx.post(f"{envoy.url}/v1/embeddings", json={"model": "minilm", "input": "x"})
            assert answer.json()["data"][0]["embedding"] == [0.25, -0.5]
            assert answer.headers[VERSION_HEADER] == "minilm"
            assert not engine.paths
            ids = [card["id"] for card in httpx.get(f"{envoy.url}/v1/models").json()["data"]]
            assert ids == [BASE, "minilm"]
