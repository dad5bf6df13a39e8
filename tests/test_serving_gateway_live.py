"""The real Envoy in front of an engine: what it changes in a request, what it refuses, and what stays out of reach."""

import json
import math
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.gateway.envoy import BODY_LIMIT_BYTES, MODEL_HEADER, VERSION_HEADER
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENGINE_NAME = "tickets-0a1b2c3d4e5f"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
# keys that JSON writes with a backslash are refused at the top level; the test of refusals has them
top_keys = st.text(st.characters(exclude_characters='"\\', exclude_categories=("Cc", "Cs"))).filter(
    lambda key: key not in ("model", "stream")
)


@pytest.fixture
def client(envoy: Envoy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=envoy.url, timeout=30) as client:
        yield client


@pytest.fixture
def served(envoy: Envoy, engine: FakeEngine, model: str) -> str:
    """A public model that ENGINE_NAME answers."""
    engine.models[ENGINE_NAME] = Behaviour()
    envoy.gateway.set_stable(model, ENGINE_NAME)
    return model


def post(client: httpx.Client, body: bytes, path: str = CHAT, **headers: str) -> httpx.Response:
    return client.post(path, content=body, headers={"content-type": "application/json", **headers})


def pieces(*parts: bytes) -> Iterator[bytes]:
    yield from parts


def assert_openai_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return dict(error)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_name_is_rewritten_and_not_one_other_byte(
    client: httpx.Client, engine: FakeEngine, served: str, path: str
) -> None:
    body = (
        ' \n{ "tools":[{"model":"decoy","a":"\\"model\\":\\"x\\""}],"x":{"model":{"model":"%s"}}, "n":1.50e+1,\t'
        '"stop":["}","]","{\\\\"] ,"model" :\r\n"%s"  ,"messages":[{"role":"user","content":"\\u00e9 é 🚢 \\" \\\\"}],'
        '"models":"%s", "empty":{} , "none":[ ] }\n'
    )
    answer = post(client, (body % (served, served, served)).encode(), path)
    assert answer.status_code == 200, answer.text
    assert answer.headers[VERSION_HEADER] == answer.json()["model"] == ENGINE_NAME
    assert engine.asked[0].body == (body % (served, ENGINE_NAME, served)).encode()
    assert engine.asked[0].path == path


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(top_keys, json_values, max_size=4),
    after=st.dictionaries(top_keys, json_values, max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
)
def test_any_body_keeps_its_meaning(
    client: httpx.Client,
    engine: FakeEngine,
    envoy: Envoy,
    before: dict[str, Any],
    after: dict[str, Any],
    ascii_only: bool,
    indent: int | None,
) -> None:
    if ENGINE_NAME not in engine.models:
        engine.models[ENGINE_NAME] = Behaviour()
        envoy.gateway.set_stable("any-body", ENGINE_NAME)
    wanted = {**before, "model": ENGINE_NAME, **after}
    sent = json.dumps({**wanted, "model": "any-body"}, ensure_ascii=ascii_only, indent=indent)
    keys_are_plain = ascii_only is False or all(key.isascii() for key in wanted)
    answer = post(client, sent.encode("utf-8", "surrogatepass"))
    if keys_are_plain:
        assert answer.status_code == 200, answer.text
        assert json.loads(engine.asked[-1].body) == wanted
    else:
        assert_openai_error(answer, 400)


@pytest.mark.parametrize("size", [220_000, BODY_LIMIT_BYTES - 1000])
def test_a_long_prompt_arrives_whole(client: httpx.Client, engine: FakeEngine, served: str, size: int) -> None:
    text = ('tickets "model": {[\\ ' * size)[:size]
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "model": served, "prompt": text})[: size + 500]
    wanted = {"messages": [{"role": "user", "content": "x"}], "model": ENGINE_NAME, "prompt": "é" * (size // 6)}
    body = json.dumps({**wanted, "model": served})
    assert size - 500 < len(body) < size + 500
    assert post(client, body.encode()).status_code == 200
    assert json.loads(engine.asked[0].body) == wanted


def test_a_body_over_the_limit_is_refused(client: httpx.Client, engine: FakeEngine, served: str) -> None:
    answer = client.post(CHAT, json={"model": served, "prompt": "x" * BODY_LIMIT_BYTES})
    assert answer.status_code == 413
    assert not engine.paths


def test_a_body_in_pieces_without_a_length_is_rewritten(client: httpx.Client, engine: FakeEngine, served: str) -> None:
    answer = client.post(CHAT, content=pieces(b'{"mod', b'el":"', served.encode(), b'", "n": 1}'))
    assert answer.status_code == 200
    assert engine.asked[0].body == b'{"model":"%s", "n": 1}' % ENGINE_NAME.encode()
    assert "transfer-encoding" not in engine.asked[0].headers


def test_the_base_model_answers_under_its_own_name(client: httpx.Client, engine: FakeEngine) -> None:
    body = json.dumps({"model": BASE, "messages": []}).encode()
    answer = post(client, body)
    assert answer.headers[VERSION_HEADER] == answer.json()["model"] == BASE
    assert engine.asked[0].body == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'"%s"',
        b'{"model":"%s"',
        b'{"model":"%s',
        b'{"model":"%s",}',
        b'{"model":"%s"} trailing',
        b'{"model":"%s"}{"model":"base-model"}',
        b'{"model":"%s" "model":"base-model"}',
        b'{"model":"%s","model":"base-model"}',
        b'{"model":"base-model","model":"%s"}',
        b'{"model":"%s","x":{"y":1},"model":{}}',
        b'{"model":"%s","m\\u006fdel":"base-model"}',
        b'{"m\\u006fdel":"%s"}',
        b'{"model":"\\u0061%s"}',
        b'{"model":"%s\\n"}',
        b'{"model":"%s\n"}',
        b'{"model":"%s\0"}',
        b'{"model":["%s"]}',
        b'{"model":{"id":"%s"}}',
        b'{"model":7}',
        b'{"model":null}',
        b'{"Model":"%s"}',
        b'{"x":{"model":"%s"}}',
        b"{'model':'%s'}",
        b'{"model" "%s"}',
        b'{"model":"%s","x":}',
        b'{"model":"%s","x":[1,2}',
        b'{"model":"%s","x":"\\"}',
        b'\xef\xbb\xbf{"model":"%s"}',
    ],
)
def test_a_body_that_could_be_read_in_two_ways_never_reaches_the_engine(
    client: httpx.Client, engine: FakeEngine, served: str, body: bytes
) -> None:
    answer = post(client, body.replace(b"%s", served.encode()))
    error = assert_openai_error(answer, 400)
    assert error["param"] == "model" and error["message"]
    assert not engine.paths


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_in_another_encoding_is_refused(
    client: httpx.Client, engine: FakeEngine, served: str, encoding: str
) -> None:
    """Python's json.loads would read it, so the engine could see a name that the gateway did not."""
    assert_openai_error(post(client, json.dumps({"model": served}).encode(encoding)), 400)
    assert not engine.paths


@pytest.mark.parametrize(
    "name", ["", "nobody", ENGINE_NAME, "../../etc/passwd", "..", "/etc", f"{BASE}/../x", BASE.upper(), "x" * 300_000]
)
def test_an_unknown_model_never_reaches_the_engine(
    client: httpx.Client, engine: FakeEngine, served: str, name: str
) -> None:
    """The engine's own names of the adapters are unknown too: only the public names are served."""
    error = assert_openai_error(client.post(CHAT, json={"model": name, "messages": []}), 404)
    assert error["code"] == "model_not_found"
    assert served in error["message"]
    assert not engine.paths


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
def test_a_forged_name_header_counts_for_nothing(
    client: httpx.Client, engine: FakeEngine, served: str, method: str
) -> None:
    headers = [(MODEL_HEADER, served), (MODEL_HEADER.title(), BASE)]
    answer = client.request(method, CHAT, headers=headers, content=b'{"model":"nobody"}')
    assert_openai_error(answer, 404)
    assert not engine.paths


def test_a_forged_name_header_beside_a_name_that_is_served(client: httpx.Client, engine: FakeEngine, served: str) -> None:
    answer = post(client, b'{"model":"%s"}' % served.encode(), **{MODEL_HEADER: BASE})
    assert answer.json()["model"] == ENGINE_NAME
    assert engine.asked[0].headers[MODEL_HEADER] == served


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/embeddings",
        "/v1/chat/completions/",
        "/v1/chat/completions/../load_lora_adapter",
        "/v1/%2e%2e/v1/load_lora_adapter",
        "/v1/chat/completions%2f..%2f..%2fload_lora_adapter",
        "//v1/load_lora_adapter",
        "/V1/chat/completions",
        "/v1/models/base-model",
        "/tokenize",
        "/sleep",
        "/metrics",
        "/health",
        "/",
    ],
)
def test_no_other_path_of_the_engine_is_reachable(
    envoy: Envoy, engine: FakeEngine, served: str, path: str, method: str
) -> None:
    body = json.dumps({"model": served, "lora_name": "x", "lora_path": "/x"}).encode()
    status, answer = raw_request(envoy, method, path, body)
    assert status == 404
    assert answer["error"]["type"] == "invalid_request_error"
    assert not engine.paths


def raw_request(envoy: Envoy, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """By hand, because a client library tidies the path."""
    url = urlsplit(envoy.url)
    with socket.create_connection((url.hostname, url.port or 0), timeout=10) as connection:
        head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    header, _, content = answer.partition(b"\r\n\r\n")
    return int(header.split()[1]), json.loads(content)


def test_the_listing_names_what_clients_may_ask_for(client: httpx.Client, engine: FakeEngine, served: str) -> None:
    listing = client.get("/v1/models").json()
    ids = [card["id"] for card in listing["data"]]
    assert listing["object"] == "list"
    assert served in ids and ids[-1] == BASE
    assert ENGINE_NAME not in ids
    assert not engine.paths


def test_a_stream_passes_through_as_it_comes(client: httpx.Client, engine: FakeEngine, served: str) -> None:
    engine.models[ENGINE_NAME] = Behaviour(chunks=3, chunk_seconds=0.4)
    arrived: list[tuple[float, str]] = []
    with client.stream("POST", CHAT, json={"model": served, "messages": [], "stream": True}) as answer:
        assert answer.headers[VERSION_HEADER] == ENGINE_NAME
        for line in answer.iter_lines():
            if line:
                arrived.append((time.monotonic(), line))
    assert arrived[-1][1] == "data: [DONE]"
    assert len(arrived) == 4
    gaps = [later[0] - earlier[0] for earlier, later in zip(arrived, arrived[1:], strict=False)]
    assert gaps[0] > 0.2 and gaps[1] > 0.2, "the chunks came together: something buffered them"


def test_the_openai_client_works(envoy: Envoy, engine: FakeEngine, served: str) -> None:
    messages: Any = [{"role": "user", "content": "Where is my parcel?"}]
    with openai.OpenAI(base_url=f"{envoy.url}/v1", api_key="none", max_retries=0) as client:
        assert served in {one.id for one in client.models.list()}
        whole = client.chat.completions.create(model=served, messages=messages)
        assert whole.choices[0].message.content == ENGINE_NAME
        assert client.completions.create(model=served, prompt="x").choices[0].text == ENGINE_NAME
        stream = client.chat.completions.create(model=served, messages=messages, stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == ["", ENGINE_NAME, ENGINE_NAME]
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody", messages=messages)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="model is given twice"):
            client.chat.completions.create(model=served, messages=messages, extra_body={}, extra_headers={}) if math.nan else None
