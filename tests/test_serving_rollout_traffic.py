"""Replayed traffic: requests count in the order in which they were sent, whatever order they end in."""

import time

from serving.gateway.envoy import VERSION_HEADER
from serving.rollout.traffic import Traffic
from tests.fix_engine import BASE, Behaviour, FakeEngine

PROMPTS = [[{"role": "user", "content": "ticket"}]]


def test_what_is_under_way_hides_what_was_sent_after_it(engine: FakeEngine) -> None:
    """The first request takes half a second; the other senders go on meanwhile, and none of theirs may count before it."""
    engine.models[BASE] = Behaviour(cold_requests=1, cold_seconds=0.5)
    traffic = Traffic(engine.url, BASE, PROMPTS, VERSION_HEADER, concurrency=3)
    with traffic.flowing(50):
        deadline = time.monotonic() + 10
        while engine.requests[BASE] < 6 and time.monotonic() < deadline:
            time.sleep(0.005)
        early = traffic.samples()
        while len(late := traffic.samples()) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
    slow = [place for place, one in enumerate(late) if one.seconds >= 0.5]
    assert len(early) <= slow[0] <= 2


def test_a_request_without_an_answer_has_failed_after_its_patience(engine: FakeEngine) -> None:
    engine.models[BASE] = Behaviour(first_token_seconds=2)
    traffic = Traffic(engine.url, BASE, PROMPTS, VERSION_HEADER, concurrency=1, patience=0.1)
    with traffic.flowing(50):
        deadline = time.monotonic() + 10
        while not traffic.samples() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert traffic.samples()[0].error.startswith("ReadTimeout")
