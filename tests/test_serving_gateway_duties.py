"""The real Envoy's duties: ids, stripped headers, errors in OpenAI's shape, limits, and an access log without prompts."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from serving.gateway.model import CLIENT_HEADER, VERSION_HEADER, Limits
from tests.bench.open_loop import Clients
from tests.bench.rollout_load import instant_engine
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy, running_envoy

CHAT = "/v1/chat/completions"
BURST = 400
PUBLIC, ENGINE_NAME = "duties", "duties-0a1b2c3d4e5f"
PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
SECRET = "the-prompt-that-nobody-may-log"


@pytest.fixture(scope="module")
def client(envoy_process: Envoy) -> Iterator[httpx.Client]:
    envoy_process.gateway.set_stable(PUBLIC, ENGINE_NAME)
    with httpx.Client(base_url=envoy_process.url, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def adapter(engine: FakeEngine) -> None:
    engine.models[ENGINE_NAME] = Behaviour()


def post(client: httpx.Client, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": PUBLIC, "messages": [], **body}, headers=headers)


def logged(envoy: Envoy, request_id: str) -> dict[str, Any]:
    """The access log's line of that request; Envoy writes it a moment after the answer."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in (envoy.gateway.folder / "access.log").read_text().splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["request_id"] == request_id:
                return dict(json.loads(line))
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id}")


def assert_error(answer: httpx.Response, status: int, kind: str, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)
    assert answer.headers["x-request-id"]
    assert PARENT.fullmatch(answer.headers["traceparent"])


def test_an_id_and_a_trace_are_made_and_reach_engine_answer_and_log(
    client: httpx.Client, engine: FakeEngine, envoy: Envoy
) -> None:
    first, second = post(client), post(client)
    made = first.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made)
    assert made != second.headers["x-request-id"]
    assert first.headers["traceparent"][3:35] != second.headers["traceparent"][3:35]
    assert PARENT.fullmatch(first.headers["traceparent"])
    assert engine.asked[0].headers["x-request-id"] == made
    assert engine.asked[0].headers["traceparent"] == first.headers["traceparent"]
    assert logged(envoy, made)["traceparent"] == first.headers["traceparent"]


def test_the_clients_id_and_trace_are_kept(client: httpx.Client, engine: FakeEngine, envoy: Envoy) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    headers = {"x-request-id": "order-4711:retry.2", "traceparent": parent, "tracestate": "vendor=1"}
    answer = post(client, headers)
    for seen in (answer.headers, engine.asked[0].headers):
        assert (seen["x-request-id"], seen["traceparent"]) == ("order-4711:retry.2", parent)
    assert engine.asked[0].headers["tracestate"] == "vendor=1"
    assert logged(envoy, "order-4711:retry.2")["traceparent"] == parent


@pytest.mark.parametrize("asked", ["", "a b", "-x", "x" * 129, 'a"b', "a/b", "é", "a,b"])
def test_an_id_that_could_harm_a_log_is_replaced(client: httpx.Client, engine: FakeEngine, asked: str) -> None:
    answer = client.post(CHAT, json={"model": PUBLIC}, headers=[(b"x-request-id", asked.encode())])
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
    assert engine.asked[0].headers["x-request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "00",
        f"00-{'0' * 32}-{'c' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"00-{'A' * 32}-{'c' * 16}-01",
        f"00-{'a' * 31}-{'c' * 17}-01",
        f"01-{'a' * 32}-{'c' * 16}-01",
        f"00-{'g' * 32}-{'c' * 16}-01",
        f"00-{'a' * 32}-{'c' * 16}-01-x",
    ],
)
def test_a_malformed_trace_is_begun_anew(client: httpx.Client, engine: FakeEngine, asked: str) -> None:
    answer = post(client, {"traceparent": asked, "tracestate": "vendor=1"})
    assert PARENT.fullmatch(answer.headers["traceparent"])
    assert answer.headers["traceparent"] != asked
    assert "tracestate" not in engine.asked[0].headers


def test_headers_that_claim_an_identity_or_steer_the_gateway_are_stripped(
    client: httpx.Client, engine: FakeEngine
) -> None:
    forged = {
        CLIENT_HEADER: "admin", VERSION_HEADER: "x", "x-forwarded-user": "admin", "x-forwarded-email": "a@b.c",
        "x-auth-request-user": "admin", "x-auth-request-email": "a@b.c", "x-user-id": "1", "remote-user": "admin",
        "x-litellm-end-user-id": "admin", "x-openwebui-user-email": "a@b.c", "x-real-ip": "10.9.9.9", "forwarded": "for=10.9.9.9",
        "x-forwarded-for": "10.9.9.9", "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "9",
        "x-liftlock-name-at": "1-2", "x-liftlock-asked-id": "stolen", "x-gateway-model-name": "x",
    }  # fmt: skip
    engine.models[ENGINE_NAME] = Behaviour(error_share=1)
    answer = post(client, forged)
    assert answer.status_code == 500
    assert len(engine.asked) == 1, "the client made the gateway ask again"
    seen = engine.asked[0].headers
    assert "10.9.9.9" not in " ".join(seen.values())
    kept = {name: value for name, value in seen.items() if forged.get(name) == value}
    assert not kept
    assert answer.headers["x-request-id"] != "stolen"
    assert answer.headers[VERSION_HEADER] == ENGINE_NAME


def test_the_log_names_everything_but_prompt_answer_and_query(
    client: httpx.Client, engine: FakeEngine, envoy: Envoy
) -> None:
    envoy.gateway.set_weight(PUBLIC, ENGINE_NAME, 100)
    messages = [{"role": "user", "content": SECRET}]
    body = {"model": PUBLIC, "messages": messages, "user": SECRET}
    answer = client.post(
        f"{CHAT}?q={SECRET}", json=body, headers={"authorization": f"Bearer {SECRET}", "x-liftlock-purpose": "canary"}
    )
    line = logged(envoy, answer.headers["x-request-id"])
    assert answer.status_code == 200
    expected = {
        "method": "POST", "path": CHAT, "model": PUBLIC, "version": ENGINE_NAME, "status": 200, "purpose": "canary",
        "weights": {"stable": 0, "candidate": 100}, "cluster": f"{PUBLIC}-candidate", "prompt_tokens": 7, "completion_tokens": 3,
        "attempts": 1, "client": None,
    }  # fmt: skip
    assert {key: line[key] for key in expected} == expected
    assert 0 <= line["first_byte_milliseconds"] <= line["milliseconds"]
    envoy.gateway.set_stable(PUBLIC, ENGINE_NAME)
    for file in ("access.log", "envoy.log"):
        assert SECRET not in (envoy.gateway.folder / file).read_text()


def test_a_streams_tokens_are_logged_where_the_client_asked_for_usage(client: httpx.Client, envoy: Envoy) -> None:
    with_usage = post(client, stream=True, stream_options={"include_usage": True})
    without = post(client, stream=True)
    line = logged(envoy, with_usage.headers["x-request-id"])
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)
    assert logged(envoy, without.headers["x-request-id"])["prompt_tokens"] is None


def test_a_request_has_one_line_and_a_stream_the_time_of_its_first_token(
    client: httpx.Client, engine: FakeEngine, envoy: Envoy
) -> None:
    """The engine sends headers at once; the first byte of the body is the first token's."""
    engine.models[ENGINE_NAME] = Behaviour(first_token_seconds=0.3)
    streamed, whole = post(client, stream=True), post(client)
    refused = post(client, model="unknown", stream=True)
    lines = [logged(envoy, answer.headers["x-request-id"]) for answer in (streamed, whole, refused)]
    assert lines[0]["first_byte_milliseconds"] < lines[0]["first_token_milliseconds"] <= lines[0]["milliseconds"]
    assert lines[0]["first_token_milliseconds"] >= 300
    assert [line["first_token_milliseconds"] for line in lines[1:]] == [None, None]
    assert lines[0].keys() == lines[1].keys()
    ids = [json.loads(line)["request_id"] for line in (envoy.gateway.folder / "access.log").read_text().splitlines()]
    assert [ids.count(line["request_id"]) for line in lines] == [1, 1, 1]


@pytest.mark.parametrize("size", [0, 1000, 2000, 3000, 100_000, 9_000_000])
def test_an_answer_of_any_size_passes_and_its_tokens_are_logged(
    client: httpx.Client, engine: FakeEngine, envoy: Envoy, size: int
) -> None:
    """It must not be buffered: Envoy refuses to buffer more than the limit of a request's body."""
    engine.models[ENGINE_NAME] = Behaviour(text="x" * size)
    answer = post(client)
    assert answer.json()["choices"][0]["message"]["content"] == ("x" * size or ENGINE_NAME)
    line = logged(envoy, answer.headers["x-request-id"])
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)


def test_no_text_poses_as_usage(client: httpx.Client, engine: FakeEngine, envoy: Envoy) -> None:
    engine.models[ENGINE_NAME] = Behaviour(text='"usage": {"prompt_tokens": 999, "completion_tokens": 999}')
    answer = client.post("/v1/chat/completions", json={"model": PUBLIC, "messages": []})
    assert logged(envoy, answer.headers["x-request-id"])["prompt_tokens"] == 7


def test_a_body_beyond_the_limit_is_413(client: httpx.Client, engine: FakeEngine) -> None:
    answer = post(client, x="x" * Limits().body_bytes)
    assert_error(answer, 413, "invalid_request_error", "request_too_large")
    assert answer.headers["x-should-retry"] == "false"
    assert not engine.paths


def test_a_prompt_of_220_kilobytes_passes(client: httpx.Client, engine: FakeEngine) -> None:
    text = 'He said "no" \\ and left.\n' * 9000
    assert post(client, messages=[{"role": "user", "content": text}]).status_code == 200
    assert json.loads(engine.asked[0].body)["messages"][0]["content"] == text


def test_headers_beyond_the_limit_are_431(client: httpx.Client) -> None:
    answer = post(client, {"x-long": "x" * (70 << 10)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_an_engine_that_is_down_is_503_and_one_that_hangs_504(engine: FakeEngine, tmp_path: Path) -> None:
    engine.models[ENGINE_NAME] = Behaviour(first_token_seconds=3)
    with running_envoy(tmp_path / "a", "http://127.0.0.1:1") as envoy:
        answer = httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE})
        assert_error(answer, 503, "server_error", "engine_unavailable")
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "false")
    with running_envoy(tmp_path / "b", engine.url, limits=Limits(request_seconds=1)) as envoy:
        envoy.gateway.set_stable(PUBLIC, ENGINE_NAME)
        answer = httpx.post(f"{envoy.url}{CHAT}", json={"model": PUBLIC})
        assert_error(answer, 504, "server_error", "engine_timeout")
        assert answer.headers["x-should-retry"] == "false"
        assert engine.requests[ENGINE_NAME] == 1, "a request that the engine has seen was sent again"


def test_beyond_the_circuit_breaker_requests_are_refused_at_once(engine: FakeEngine, tmp_path: Path) -> None:
    engine.models[ENGINE_NAME] = Behaviour(first_token_seconds=1)
    limits = Limits(requests=2, waiting=1)
    with running_envoy(tmp_path, engine.url, limits=limits) as envoy, ThreadPoolExecutor(8) as pool:
        envoy.gateway.set_stable(PUBLIC, ENGINE_NAME)
        ask = {"model": PUBLIC}
        answers = list(pool.map(lambda _: httpx.post(f"{envoy.url}{CHAT}", json=ask, timeout=20), range(8)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 4 <= len(refused) <= 6
    for answer in refused:
        assert_error(answer, 503, "server_error", "engine_unavailable")
        assert answer.elapsed.total_seconds() < 0.9


def test_a_burst_within_the_limit_is_served_whole(tmp_path: Path) -> None:
    """Requests that come at once all wait for their connections: with room for 128 of them, an idle gateway refused the others."""
    with instant_engine() as address, running_envoy(tmp_path, address) as envoy:
        envoy.gateway.set_stable(PUBLIC, ENGINE_NAME)
        parts = urlsplit(envoy.url)
        clients = Clients(parts.hostname or "", parts.port or 0, PUBLIC)

        async def burst() -> None:
            opened = (asyncio.open_connection(parts.hostname, parts.port) for _ in range(BURST))
            clients.idle.extend(await asyncio.gather(*opened))
            await asyncio.gather(*(clients.ask(1) for _ in range(BURST)))

        asyncio.run(burst())
    assert [row[-1] for row in clients.rows] == [""] * BURST


def test_an_engine_that_keeps_failing_is_counted_out_but_one_alone_is_still_asked(
    engine: FakeEngine, tmp_path: Path
) -> None:
    with running_envoy(tmp_path, "http://127.0.0.1:1") as envoy:
        for _ in range(8):
            assert httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}).status_code == 503
        text = httpx.get(f"{envoy.gateway.admin_url}/stats?filter=^cluster.engine.outlier_detection").text
        stats = {
            name.rpartition(".")[2]: int(value) for name, value in (line.split(": ") for line in text.splitlines())
        }
        assert stats["ejections_detected_consecutive_gateway_failure"] > 0
        assert stats["ejections_active"] == 0


TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "route", "parameters": {"type": "object", "properties": {"team": {"type": "string"}}}},
    }
]


@pytest.mark.usefixtures("client")
def test_the_openai_client_embeds_and_calls_tools(envoy: Envoy, engine: FakeEngine) -> None:
    messages: Any = [{"role": "user", "content": "Where is my parcel?"}]
    with openai.OpenAI(base_url=f"{envoy.url}/v1", api_key="none", max_retries=0) as ask:
        vector = ask.embeddings.create(model=PUBLIC, input="parcel", encoding_format="float")
        assert vector.data[0].embedding == [0.25, -0.5]
        assert engine.asked[0].path == "/v1/embeddings"
        called = ask.chat.completions.create(model=PUBLIC, messages=messages, tools=TOOLS, tool_choice="auto")
        (call,) = called.choices[0].message.tool_calls or []
        assert (call.function.name, call.function.arguments) == ("route", '{"team": "billing"}')  # type: ignore[union-attr]
        assert json.loads(engine.asked[1].body)["tools"] == TOOLS


@pytest.mark.usefixtures("client")
def test_the_openai_client_raises_its_own_errors(envoy: Envoy, engine: FakeEngine) -> None:
    messages: Any = [{"role": "user", "content": "x" * Limits().body_bytes}]
    with openai.OpenAI(base_url=f"{envoy.url}/v1", api_key="none", max_retries=2) as ask:
        with pytest.raises(openai.APIStatusError) as large:
            ask.chat.completions.create(model=PUBLIC, messages=messages)
        assert (large.value.status_code, large.value.code) == (413, "request_too_large")  # type: ignore[attr-defined]
        assert large.value.request_id
        engine.models[ENGINE_NAME] = Behaviour(error_share=1)
        with pytest.raises(openai.InternalServerError):
            ask.with_options(max_retries=0).completions.create(model=PUBLIC, prompt="x")
