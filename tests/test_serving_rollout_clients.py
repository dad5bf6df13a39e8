"""Clients' own requests, out of the real Envoy's access log: judged beside the replayed ones, and marked apart."""

import json
import time
from pathlib import Path

import httpx
import pytest

from serving.gateway.rotation import rotate
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import PURPOSE
from serving.rollout.clients import ClientLog
from serving.rollout.looks import look
from serving.rollout.machine import State
from serving.rollout.model import Sample
from tasks.rollout_evidence import rows
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy

OLD, NEW = "tickets-1", "tickets-2"
POLICY = AnalysisPolicy(min_requests=12, max_error_rate=0.0, max_first_token_ratio=2.0, steps=2)


def asked(envoy: Envoy, model: str, count: int, headers: dict[str, str] | None = None, **body: object) -> None:
    with httpx.Client(timeout=30) as client:
        for _ in range(count):
            client.post(
                f"{envoy.url}/v1/chat/completions", json={"model": model, "messages": [], **body}, headers=headers
            )


def seen(log: ClientLog, count: int) -> list[Sample]:
    """Envoy writes its lines a moment after the answers."""
    deadline = time.monotonic() + 60
    while len(found := log.samples()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_both_versions_requests_are_read_and_the_releases_own_are_not(
    envoy: Envoy, engine: FakeEngine, model: str
) -> None:
    engine.models |= {OLD: Behaviour(), NEW: Behaviour(error_share=1.0)}
    envoy.gateway.set_stable(model, OLD)
    asked(envoy, model, 3)
    envoy.gateway.set_weight(model, NEW, 50)
    log = ClientLog(envoy.gateway.folder / "access.log", model)
    log.start(OLD, NEW, 50)
    asked(envoy, model, 5, PURPOSE)
    asked(envoy, model, 20)
    found = seen(log, 20)
    assert len(found) == 20
    assert {one.version for one in found} == {OLD, NEW}
    assert {one.ok for one in found if one.version == OLD} == {True}
    assert {one.error for one in found if one.version == NEW} == {"status 500 -"}
    assert {one.tokens for one in found if one.version == OLD} == {3}


def test_a_slow_first_token_is_seen_behind_early_headers(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    """As on vLLM, which sends a stream's headers when it takes the request: only the first event tells slow from fast."""
    engine.models |= {OLD: Behaviour(), NEW: Behaviour(first_token_seconds=0.3, chunk_seconds=0.05)}
    envoy.gateway.set_stable(model, OLD)
    envoy.gateway.set_weight(model, NEW, 50)
    log = ClientLog(envoy.gateway.folder / "access.log", model)
    log.start(OLD, NEW, 50)
    asked(envoy, model, 12, stream=True, stream_options={"include_usage": True})
    found = seen(log, 12)
    slow, fast = ([one for one in found if one.version == name] for name in (NEW, OLD))
    assert slow and min(one.first_token_seconds or 0 for one in slow) >= 0.3
    assert fast and min(one.first_token_seconds or 1 for one in fast) < 0.3, "no request of the other was quick"
    assert min(one.inter_token_seconds or 0 for one in slow) >= 0.04
    asked(envoy, model, 1)
    assert [one.first_token_seconds for one in seen(log, 13)][12:] == [None], "a whole answer has no first token"


def test_no_line_is_lost_where_the_log_is_turned_over(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    engine.models |= {OLD: Behaviour(), NEW: Behaviour()}
    envoy.gateway.set_stable(model, OLD)
    envoy.gateway.set_weight(model, NEW, 50)
    path = envoy.gateway.folder / "access.log"
    log = ClientLog(path, model)
    log.start(OLD, NEW, 50)
    asked(envoy, model, 4)
    assert len(seen(log, 4)) == 4
    assert rotate(path, envoy.gateway.admin_url, max_bytes=1)
    asked(envoy, model, 6)
    assert len(seen(log, 10)) == 10


def row(**fields: object) -> dict[str, object]:
    return {
        "time": "2026-11-28T10:00:00.000Z", "model": "tickets", "version": NEW, "weights": {"stable": 50, "candidate": 50},
        "cluster": "tickets-candidate", "status": 200, "flags": "-", "milliseconds": 40, "first_token_milliseconds": 20,
        "completion_tokens": 3, "purpose": None, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, ""),
        ({"cluster": "tickets-candidate-1a2b3c4d-chain"}, ""),
        ({"status": 503, "version": None, "flags": "UF"}, "status 503 UF"),
        ({"status": 404, "version": None}, "status 404 -"),
        ({"flags": "UC"}, "cut: UC"),
        ({"version": "base-model"}, "answered by base-model instead"),
    ],
)
def test_what_a_line_says_of_the_candidate(fields: dict[str, object], error: str) -> None:
    log = ClientLog(Path("none"), "tickets", OLD, NEW, 50)
    sample = log.sample(row(**fields))
    assert sample and (sample.version, sample.ok, sample.error) == (NEW, not error, error)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"weights": {"stable": 90, "candidate": 10}},
        {"weights": None},
        {"purpose": "canary"},
        {"status": 400},
        {"status": 429},
        {"status": 0, "flags": "DC"},
        {"cluster": None},
    ],
)
def test_what_is_no_versions_fault_counts_for_none(fields: dict[str, object]) -> None:
    assert ClientLog(Path("none"), "tickets", OLD, NEW, 50).sample(row(**fields)) is None


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("old\n")
    log = ClientLog(path, "tickets")
    log.start(OLD, NEW, 50)
    line = json.dumps(row())
    with path.open("a") as out:
        out.write(line[:40])
        out.flush()
        assert log.samples() == []
        out.write(f"{line[40:]}\n")
    assert len(log.samples()) == 1


def sample(place: int, slow: float = 0.1) -> Sample:
    name = NEW if place % 2 else OLD
    return Sample(name, True, slow if name == NEW else 0.1, "", name, 0.3, 10, "stop")


def test_clients_can_undo_what_the_replayed_requests_do_not_see_and_never_pass_a_step() -> None:
    state = State("tickets", NEW, OLD, (50, 100), 60, phase="watching", weight=50)
    good = [sample(place) for place in range(80)]
    assert look(state, good, POLICY, 1.0, []).decision == "go_on"
    step = look(state, good, POLICY, 1.0, [sample(place, 0.5) for place in range(120)])
    assert (step.decision, step.reason.startswith("clients: median first token")) == ("undo", True)
    assert step.clients and step.clients.candidate.requests == 60
    assert "clients: first token" in {one.metric for one in rows((step,))}
    assert look(state, good[:4], POLICY, 1.0, good).decision == "hold"
