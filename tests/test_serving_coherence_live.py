"""An incoherent chain and what --fix makes of it, live: the probe's rows against what the files declare, and requests at a full vLLM."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.coherence.check import check
from serving.coherence.probe_engine import upstream
from serving.coherence.worst import amplification
from tests.fix_coherence import TODAY, rules_of
from tests.fix_coherence_live import HELD_NEXT, LITELLM, VLLM, Engine, Side, envoy, running, sides, together
from tests.fix_envoy import free_ports
from tests.fix_waiting import await_that

needs_litellm = pytest.mark.skipif(
    not LITELLM.exists(), reason="LiteLLM is not installed: python -m tests.bench.oracles"
)
needs_vllm = pytest.mark.skipif(not VLLM.exists(), reason="vLLM is not installed: make setup")
CLIENTS = 2
HELD_SECONDS = 5.0  # longer than LiteLLM waits in the incoherent chain, shorter than in the mended one
JITTER_SECONDS = 3 * 0.75


@needs_litellm
@needs_vllm
@pytest.mark.slow(seconds=105)
def test_an_incoherent_chain_amplifies_and_the_mended_one_does_not(tmp_path: Path) -> None:
    """Nine requests at a full engine for one of OpenAI's SDK, and no answer; mended, one, and it is answered."""
    (port,) = free_ports(1)
    before, after = sides(tmp_path, port)
    assert rules_of(check(before.paths, TODAY)) == {
        "retries-two-layers", "router-route", "answer-cut", "stream-first-chunk", "idle-whole-answer", "cancel-lost",
    }  # fmt: skip
    assert check(after.paths, TODAY).findings == ()
    with running(tmp_path, (before, after), port) as engine, ThreadPoolExecutor(3) as pool:
        overloaded = pool.submit(overload, engine, before, after)
        probed = list(pool.map(Side.probed, (before, after)))
        amplified, mended = overloaded.result()
    assert [each.returncode for each in probed] == [0, 0], [each.stdout + each.stderr for each in probed]
    rows = [{row["kind"]: row for row in json.loads(each.stdout)} for each in probed]
    assert amplification(before.chain.hops) == 9 and abs(amplified - 9) <= 0.9
    assert mended == 1.0
    assert [each["refuses"]["requests"] for each in rows] == [3, 1]
    assert worst_case(rows) == [3 * 3 + 3.5 + JITTER_SECONDS, after.chain.hops[-1].whole.total.value]
    assert [each["client leaves, whole"]["outcome"] for each in rows] == [
        "the upstream still works", "the upstream was told",
    ]  # fmt: skip
    for each in rows:
        assert each["dies in mid-stream"]["requests"] == 1
        assert each["client leaves, streamed"]["outcome"] == "the upstream was told"


def overload(engine: Engine, before: Side, after: Side) -> tuple[float, float]:
    """Requests at vLLM for one of a client's, by its own counters, while its only place is taken."""
    with engine.held():
        assert together(CLIENTS, before) == [408] * CLIENTS
        await_that(lambda: engine.waiting() <= HELD_NEXT, 60)  # LiteLLM has ended its last try, and vLLM knows
        time.sleep(1)
        began = engine.chats()
    with ThreadPoolExecutor(1) as pool:
        with engine.held():
            answered = pool.submit(together, CLIENTS, after)
            time.sleep(HELD_SECONDS)
        assert answered.result() == [200] * CLIENTS
    return began / CLIENTS, (engine.chats() - began) / CLIENTS


def worst_case(rows: list[dict[str, Any]]) -> list[float]:
    """As declared, of a silent upstream; held against what was seen within 10 %, and jitter, which is a draw."""
    declared = []
    for each, jitter in zip(rows, (JITTER_SECONDS, 0.0), strict=True):
        for kind in ("silent, whole", "silent, streamed"):
            row, late = each[kind], each["plain, beside them"]["seconds"] * each[kind]["requests"]
            assert 0.9 * (row["declared_seconds"] - jitter) <= row["seconds"] <= 1.1 * row["declared_seconds"] + late
        declared.append(each["silent, whole"]["declared_seconds"])
    return declared


def stream_seconds(url: str, seconds: float) -> tuple[float, bool]:
    """How long a stream of `seconds` came through, and whether it was cut."""
    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "probe: slow"}]}
    began = time.monotonic()
    try:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
            for _ in answer.iter_raw():
                if time.monotonic() - began >= seconds:
                    return time.monotonic() - began, False
    except httpx.HTTPError:
        pass
    return time.monotonic() - began, True


@pytest.mark.slow
def test_a_stream_of_20_s_dies_on_envoys_default_and_survives_what_liftlock_renders(tmp_path: Path) -> None:
    """The route that Liftlock's own gateway renders, beside a route without a timeout, in one Envoy."""
    from serving.gateway.model import DEFAULT_LIMITS

    bare, ours = free_ports(2)
    with upstream("127.0.0.1", 0) as engine:
        target = int(engine.url.rpartition(":")[2])
        with (
            envoy(tmp_path, (bare, target, None), (ours, target, f"{DEFAULT_LIMITS.request_seconds}s")),
            ThreadPoolExecutor(2) as pool,
        ):
            cut, whole = pool.map(lambda port: stream_seconds(f"http://127.0.0.1:{port}", 20.0), (bare, ours))
    assert cut[1] and 14.5 < cut[0] < 16.5, cut
    assert not whole[1] and whole[0] >= 20, whole
