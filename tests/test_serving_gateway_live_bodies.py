"""The real Envoy reads a request's body: the model's name is rewritten and nothing else; what is ambiguous is refused."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.gateway.envoy import VERSION_HEADER
from serving.gateway.model import Limits
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy, assert_openai_error

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MODEL, ENGINE_NAME = "bodies", "bodies-0a1b2c3d4e5f"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
# no key here that JSON writes with a backslash: those are refused at the top level
top_keys = st.text(st.characters(exclude_characters='"\\', exclude_categories=("Cc", "Cs"))).filter(
    lambda key: key not in ("model", "stream")
)


@pytest.fixture(scope="module")
def client(envoy_process: Envoy) -> Iterator[httpx.Client]:
    envoy_process.gateway.set_stable(MODEL, ENGINE_NAME)
    with httpx.Client(base_url=envoy_process.url, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def adapter(engine: FakeEngine) -> None:
    engine.models[ENGINE_NAME] = Behaviour()


def post(client: httpx.Client, body: bytes, path: str = CHAT) -> httpx.Response:
    return client.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_name_is_rewritten_and_not_one_other_byte(client: httpx.Client, engine: FakeEngine, path: str) -> None:
    body = (
        ' \n{ "tools":[{"model":"decoy","a":"\\"model\\":\\"x\\""}],"x":{"model":{"model":"bodies"}}, "n":1.50e+1,\t'
        '"stop":["}","]","{\\\\"] ,"model" :\r\n"NAME"  ,"messages":[{"role":"user","content":"\\u00e9 é 🚢 \\" \\\\"}],'
        '"models":"bodies", "empty":{} , "none":[ ] }\n'
    )
    answer = post(client, body.replace("NAME", MODEL).encode(), path)
    assert answer.status_code == 200, answer.text
    assert answer.headers[VERSION_HEADER] == answer.json()["model"] == ENGINE_NAME
    assert engine.asked[0].body == body.replace("NAME", ENGINE_NAME).encode()
    assert engine.asked[0].path == path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(top_keys, json_values, max_size=4),
    after=st.dictionaries(top_keys, json_values, max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
)
def test_any_body_keeps_its_meaning(
    client: httpx.Client,
    engine: FakeEngine,
    before: dict[str, Any],
    after: dict[str, Any],
    ascii_only: bool,
    indent: int | None,
) -> None:
    wanted = {**before, "model": ENGINE_NAME, **after}
    sent = json.dumps({**wanted, "model": MODEL}, ensure_ascii=ascii_only, indent=indent)
    answer = post(client, sent.encode())
    if ascii_only and not all(key.isascii() for key in wanted):
        assert_openai_error(answer, 400)  # such a key was written with a backslash
    else:
        assert answer.status_code == 200, answer.text
        assert json.loads(engine.asked[-1].body) == wanted


@pytest.mark.parametrize("size", [220_000, Limits().body_bytes - 1000])
def test_a_long_prompt_arrives_whole(client: httpx.Client, engine: FakeEngine, size: int) -> None:
    text = 'tickets "model": {[\\ é '
    wanted = {"prompt": text * (size // len(json.dumps(text)[1:-1])), "model": ENGINE_NAME, "n": 1}
    body = json.dumps({**wanted, "model": MODEL}).encode()
    assert size - 200 < len(body) < size + 200
    assert post(client, body).status_code == 200
    assert json.loads(engine.asked[0].body) == wanted


def test_a_body_over_the_limit_is_refused(client: httpx.Client, engine: FakeEngine) -> None:
    answer = client.post(CHAT, json={"model": MODEL, "prompt": "x" * Limits().body_bytes})
    assert answer.status_code == 413
    assert not engine.paths


def test_a_body_in_pieces_without_a_length_is_rewritten(client: httpx.Client, engine: FakeEngine) -> None:
    answer = client.post(CHAT, content=iter([b'{"mod', b'el":"', MODEL.encode(), b'", "n": 1}']))
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
        b'"bodies"',
        b'{"model":"bodies"',
        b'{"model":"bodies',
        b'{"model":"bodies",}',
        b'{"model":"bodies"} trailing',
        b'{"model":"bodies"}{"model":"base-model"}',
        b'{"model":"bodies" "model":"base-model"}',
        b'{"model":"bodies","model":"base-model"}',
        b'{"model":"base-model","model":"bodies"}',
        b'{"model":"bodies","x":{"y":1},"model":{}}',
        b'{"model":"bodies","m\\u006fdel":"base-model"}',
        b'{"m\\u006fdel":"bodies"}',
        b'{"model":"\\u0062odies"}',
        b'{"model":"bodies\\n"}',
        b'{"model":"bodies\n"}',
        b'{"model":"bodies\0"}',
        b'{"model":["bodies"]}',
        b'{"model":{"id":"bodies"}}',
        b'{"model":7}',
        b'{"model":null}',
        b'{"Model":"bodies"}',
        b'{"x":{"model":"bodies"}}',
        b"{'model':'bodies'}",
        b'{"model" "bodies"}',
        b'{"model":"bodies","x":}',
        b'{"model":"bodies","x":[1,2}',
        b'{"model":"bodies","x":"\\"}',
        b'\xef\xbb\xbf{"model":"bodies"}',
        # Python's json.loads reads these, so the engine could see a name that the gateway did not
        '{"model":"bodies"}'.encode("utf-16"),
        '{"model":"bodies"}'.encode("utf-16-le"),
        '{"model":"bodies"}'.encode("utf-16-be"),
        '{"model":"bodies"}'.encode("utf-32-le"),
    ],
)
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    client: httpx.Client, engine: FakeEngine, body: bytes
) -> None:
    error = assert_openai_error(post(client, body), 400)
    assert error["param"] == "model"
    assert error["message"]
    assert not engine.paths


@pytest.mark.parametrize(
    "name", ["", "nobody", ENGINE_NAME, "../../etc/passwd", "..", "/etc", f"{BASE}/../x", BASE.upper(), "x" * 300_000]
)
def test_an_unknown_model_never_reaches_the_engine(client: httpx.Client, engine: FakeEngine, name: str) -> None:
    """The engine's own names of the adapters are unknown too: only the public names are served."""
    error = assert_openai_error(client.post(CHAT, json={"model": name, "messages": []}), 404)
    assert error["code"] == "model_not_found"
    assert MODEL in error["message"]
    assert not engine.paths
