"""Sticky splits through the real Envoy: a session keeps its version, moves at most once as the weight grows, and others are drawn."""

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.local import LocalTarget
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy

STABLE, CANDIDATE = "sticky-1", "sticky-2"
SESSIONS = [f"session-{number}" for number in range(200)]


def versions(envoy: Envoy, model: str, sessions: list[str | None]) -> list[str]:
    found = []
    with httpx.Client(base_url=envoy.url, timeout=30) as client:
        for session in sessions:
            headers = {"x-session-id": session} if session else {}
            answer = client.post("/v1/chat/completions", json={"model": model, "messages": []}, headers=headers)
            found.append(answer.headers[VERSION_HEADER])
    return found


def test_a_session_keeps_its_version_and_moves_to_the_candidate_at_most_once(
    envoy: Envoy, engine: FakeEngine, model: str
) -> None:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    envoy.gateway.set_stable(model, STABLE)
    target = LocalTarget(envoy.gateway, sticky="x-session-id")
    before: set[str] = set()
    for weight in (20, 50, 80):
        target.weigh(model, CANDIDATE, weight)
        first, again = versions(envoy, model, [*SESSIONS]), versions(envoy, model, [*SESSIONS])
        assert first == again
        moved = {session for session, version in zip(SESSIONS, first, strict=True) if version == CANDIDATE}
        assert before <= moved, "somebody went back to stable while the weight grew"
        assert abs(len(moved) - 2 * weight) < 30  # 200 sessions: a deviation of 7 at the most
        before = moved
    assert len(set(versions(envoy, model, [None] * 40))) == 2
    target.restore(model, STABLE)
    assert envoy.gateway.splits()[model] == Split(model, STABLE)


@pytest.mark.parametrize("name", ["", "X-Session", "a b", "a\nb", "x" * 65])
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="only small letters, digits and dashes"):
        Split("m", "m-1", "m-2", 10, sticky=name)
