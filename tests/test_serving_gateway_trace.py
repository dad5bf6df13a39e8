"""`liftlock trace`: one id finds a request at every hop; and the access log that it reads is turned over without a lost line."""

import json
from pathlib import Path

import httpx
import pytest

from serving.gateway.rotation import logs, rotate
from serving.gateway.trace import NotTraced, request_id, trace
from tests.fix_engine import BASE, FakeEngine
from tests.fix_envoy import running_envoy
from tests.test_serving_gateway_duties import logged

CHAT = "/v1/chat/completions"
ID = "0f3b6c1e-8a8e-4b7e-9d55-6f1c1f6f2a10"
TRACE = "ab" * 16
LINE = {
    "request_id": ID, "traceparent": f"00-{TRACE}-{'cd' * 8}-01", "time": "2026-11-28T07:00:00Z", "method": "POST", "path": CHAT,
    "model": "tickets", "version": "tickets-1", "weights": {"stable": 90.0, "candidate": 10.0}, "status": 200, "flags": "-",
    "attempts": 1, "first_byte_milliseconds": 12, "first_token_milliseconds": 30, "milliseconds": 80, "prompt_tokens": 20,
    "completion_tokens": 4, "client": "billing",
}  # fmt: skip
ENGINE = f"INFO 11-28 07:00:00 [request_logger.py:60] Received request chatcmpl-{ID}: params: SamplingParams(n=1), lora_request: None.\n"


def write(folder: Path) -> tuple[list[Path], list[Path]]:
    access, engine = folder / "access.log", folder / "vllm.log"
    others = [
        {**LINE, "request_id": f"{ID}-2", "traceparent": None},
        {**LINE, "request_id": ID[:-1], "traceparent": None},
    ]
    access.write_text("".join(json.dumps(one) + "\n" for one in (*others, LINE)) + '{"request_id": "' + ID)
    engine.write_text(f"{ENGINE}{ENGINE.replace(ID, ID[:-1])}{ENGINE.replace(ID, ID + '0')}")
    return [access], [engine]


@pytest.mark.parametrize("asked", [ID, f"chatcmpl-{ID}", f" {ID}\n", TRACE, f"00-{TRACE}-{'cd' * 8}-01"])
def test_every_name_of_a_request_finds_both_hops(tmp_path: Path, asked: str) -> None:
    gateway, engine = trace(asked, *write(tmp_path))
    assert gateway.place == "gateway"
    assert gateway.fields == LINE
    assert gateway.text == (
        "2026-11-28T07:00:00Z POST /v1/chat/completions; client billing; asked for tickets, served by tickets-1 "
        "(stable 90 %, candidate 10 %); status 200; first token 30 ms of 80 ms; tokens 20 in, 4 out"
    )
    assert (engine.place, engine.text) == ("engine", ENGINE.strip())


def test_an_unknown_id_says_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(NotTraced, match=r"no line names 1234; looked into: .*access.log.*vllm.log"):
        trace("1234", *write(tmp_path))


@pytest.mark.parametrize("asked", ["", "abc", "a b", "x" * 200, "../../etc/passwd", '"'])
def test_what_is_no_id_is_said(asked: str) -> None:
    with pytest.raises(NotTraced, match="is no request id"):
        request_id(asked)


def test_a_log_that_is_turned_over_loses_no_line(engine: FakeEngine, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running_envoy(tmp_path, engine.url) as envoy, httpx.Client(base_url=envoy.url) as client:
        admin = envoy.gateway.admin_url
        assert not rotate(log, admin, max_bytes=1 << 20)
        asked = []
        for round_ in range(5):
            for number in range(20):
                asked.append(f"turn-{round_}-{number}")
                client.post(CHAT, json={"model": BASE}, headers={"x-request-id": asked[-1]})
            logged(envoy, asked[-1])
            assert rotate(log, admin, max_bytes=1, kept=9)
        client.post(CHAT, json={"model": BASE}, headers={"x-request-id": "turn-last"})
        logged(envoy, "turn-last")
        found = [json.loads(line)["request_id"] for file in logs(log, kept=9) for line in file.read_text().splitlines()]
        assert [one for one in found if one.startswith("turn-")] == [*asked, "turn-last"]


def test_no_more_old_logs_than_asked_are_kept(engine: FakeEngine, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running_envoy(tmp_path, engine.url) as envoy:
        for number in range(6):
            httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers={"x-request-id": f"kept-{number}"})
            logged(envoy, f"kept-{number}")
            assert rotate(log, envoy.gateway.admin_url, max_bytes=1, kept=2)
    assert sorted(file.name for file in tmp_path.glob("access.log.*")) == ["access.log.1", "access.log.2"]
    assert "kept-5" in (tmp_path / "access.log.1").read_text()


def test_an_envoy_that_is_down_is_told_at_the_next_call(engine: FakeEngine, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running_envoy(tmp_path, engine.url) as envoy:
        httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers={"x-request-id": "before"})
        logged(envoy, "before")
        with pytest.raises(httpx.ConnectError):
            rotate(log, "http://127.0.0.1:1", max_bytes=1)
        assert not log.exists()
        assert not rotate(log, envoy.gateway.admin_url, max_bytes=1 << 20)
        httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers={"x-request-id": "after"})
        logged(envoy, "after")
