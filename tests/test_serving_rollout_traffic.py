"""Replayed traffic: requests count in the order in which they were sent, whatever order they end in."""

import threading
import time

import httpx

from serving.gateway.envoy import VERSION_HEADER
from serving.rollout.ask import ask
from serving.rollout.traffic import MOST_WAIT_SECONDS, Traffic
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_rollout_scene import STABLE, Scene

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


def sent_beside_a_client(scene: Scene, seconds: float) -> tuple[int, list[float]]:
    """One client's request of so many seconds behind the gateway, and traffic beside it: what was sent until the answer came, and when,
    in seconds since the client began."""
    scene.engine.models[STABLE] = Behaviour(cold_requests=1, cold_seconds=seconds)
    answers = list[bool]()

    def client() -> None:
        with httpx.Client(timeout=30) as one:
            answers.append(ask(one, scene.envoy.url, scene.model, PROMPTS[0], VERSION_HEADER).ok)

    thread, began = threading.Thread(target=client), time.monotonic()
    thread.start()
    while not scene.envoy.gateway.under_way():
        time.sleep(0.01)
    traffic = Traffic(
        scene.envoy.url, scene.model, PROMPTS, VERSION_HEADER, rate=20, under_way=scene.envoy.gateway.under_way
    )
    times = list[float]()
    with traffic.flowing(0):
        while len(times) < 8 and time.monotonic() < began + 20:
            times += [time.monotonic() - began] * (len(traffic.samples()) - len(times))
            time.sleep(0.01)
    thread.join()
    assert answers == [True]
    return sum(one < seconds for one in times), times


def test_replayed_requests_wait_for_a_pause_of_the_clients(scene: Scene) -> None:
    early, times = sent_beside_a_client(scene, MOST_WAIT_SECONDS * 0.7)
    assert (early, len(times) >= 8) == (0, True)


def test_where_clients_never_pause_the_replayed_requests_go_on(scene: Scene) -> None:
    early, _ = sent_beside_a_client(scene, MOST_WAIT_SECONDS * 3)
    assert early > 0
