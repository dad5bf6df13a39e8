"""The real Envoy as its clients see it: what they can reach, and streams that come as they are sent."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from serving.gateway.envoy import VERSION_HEADER
from serving.gateway.model import MODEL_HEADER
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy, assert_openai_error

CHAT = "/v1/chat/completions"
PUBLIC, ENGINE_NAME = "tickets", "tickets-0a1b2c3d4e5f"


@pytest.fixture(scope="module")
def client(envoy_process: Envoy) -> Iterator[httpx.Client]:
    envoy_process.gateway.set_stable(PUBLIC, ENGINE_NAME)
    with httpx.Client(base_url=envoy_process.url, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def adapter(engine: FakeEngine) -> None:
    engine.models[ENGINE_NAME] = Behaviour()


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
def test_a_forged_name_header_counts_for_nothing(client: httpx.Client, engine: FakeEngine, method: str) -> None:
    headers = [(MODEL_HEADER, PUBLIC), (MODEL_HEADER.title(), BASE)]
    answer = client.request(method, CHAT, headers=headers, content=b'{"model":"nobody"}')
    assert_openai_error(answer, 404)
    assert not engine.paths


def test_a_forged_name_header_beside_a_name_that_is_served(client: httpx.Client, engine: FakeEngine) -> None:
    answer = client.post(CHAT, json={"model": PUBLIC}, headers={MODEL_HEADER: BASE})
    assert answer.json()["model"] == ENGINE_NAME
    assert engine.asked[0].headers[MODEL_HEADER] == PUBLIC


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/chat/completions/",
        "/v1/chat/completions/../load_lora_adapter",
        "/v1/%2e%2e/v1/load_lora_adapter",
        "/v1/chat/completions%2f..%2f..%2fload_lora_adapter",
        "//v1/load_lora_adapter",
        "/V1/chat/completions",
        "/v1/models/nobody",
        "/tokenize",
        "/sleep",
        "/metrics",
        "/health",
        "/",
    ],
)
@pytest.mark.usefixtures("client")
def test_no_other_path_of_the_engine_is_reachable(envoy: Envoy, engine: FakeEngine, path: str, method: str) -> None:
    body = json.dumps({"model": PUBLIC, "lora_name": "x", "lora_path": "/x"}).encode()
    status, answer = raw_request(envoy, method, path, body)
    assert status == 404
    assert answer["error"]["type"] == "invalid_request_error"
    assert not engine.paths


def raw_request(envoy: Envoy, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """By hand, because a client library tidies the path."""
    url = urlsplit(envoy.url)
    with socket.create_connection((url.hostname, url.port or 0), timeout=10) as connection:
        head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers = dict(line.decode().strip().split(": ", 1) for line in iter(answer.readline, b"\r\n"))
            return status, json.loads(answer.read(int(headers["content-length"])))


def test_the_listing_names_what_clients_may_ask_for(client: httpx.Client, engine: FakeEngine) -> None:
    listing = client.get("/v1/models").json()
    ids = [card["id"] for card in listing["data"]]
    assert listing["object"] == "list"
    assert PUBLIC in ids
    assert ids[-1] == BASE
    assert ENGINE_NAME not in ids
    assert not engine.paths


def test_a_stream_passes_through_as_it_comes(client: httpx.Client, engine: FakeEngine) -> None:
    engine.models[ENGINE_NAME] = Behaviour(chunks=3, chunk_seconds=0.4)
    arrived: list[tuple[float, str]] = []
    with client.stream("POST", CHAT, json={"model": PUBLIC, "messages": [], "stream": True}) as answer:
        assert answer.headers[VERSION_HEADER] == ENGINE_NAME
        arrived += [(time.monotonic(), line) for line in answer.iter_lines() if line]
    assert len(arrived) == 4
    assert arrived[-1][1] == "data: [DONE]"
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(arrived)]
    assert min(gaps[:2]) > 0.2, "the chunks came together: something buffered them"


@pytest.mark.usefixtures("client")
def test_the_openai_client_works(envoy: Envoy) -> None:
    messages: Any = [{"role": "user", "content": "Where is my parcel?"}]
    with openai.OpenAI(base_url=f"{envoy.url}/v1", api_key="none", max_retries=0) as client:
        assert PUBLIC in {one.id for one in client.models.list()}
        assert client.models.retrieve(PUBLIC).id == PUBLIC
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody")
        whole = client.chat.completions.create(model=PUBLIC, messages=messages)
        assert whole.choices[0].message.content == ENGINE_NAME
        assert client.completions.create(model=PUBLIC, prompt="x").choices[0].text == ENGINE_NAME
        stream = client.chat.completions.create(model=PUBLIC, messages=messages, stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == ["", ENGINE_NAME, ENGINE_NAME]
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody", messages=messages)
        assert unknown.value.code == "model_not_found"
