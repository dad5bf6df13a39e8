"""The gateway's state with a real Envoy: the split by weight, changes under load, restarts, and what is wanted while it is down."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from scipy.stats import binom  # type: ignore[import-untyped]

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.gateway.state import GatewayNotApplied
from serving.rollout.ask import ask
from serving.rollout.local import LocalTarget
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy, assert_openai_error, running_envoy

CHAT = "/v1/chat/completions"
STABLE, CANDIDATE = "split-stable", "split-candidate"


@pytest.fixture(autouse=True)
def adapters(engine: FakeEngine) -> None:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}


def answered_by(url: str, model: str, count: int) -> Counter[str]:
    """Versions of `count` answers; the engine's name, the header and the body must agree."""
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(CHAT, json={"model": model, "messages": []}), range(count)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["model"] == answer.headers[VERSION_HEADER] for answer in answers)
    return Counter(answer.headers[VERSION_HEADER] for answer in answers)


def assert_share(found: Counter[str], weight: int) -> None:
    """Envoy draws a version for each request, so the count is binomial. One run in a million fails by chance."""
    low, high = binom.interval(1 - 1e-6, found.total(), weight / 100)
    assert low <= found[CANDIDATE] <= high, f"{found} at {weight} %"


def test_the_traffic_splits_by_weight(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    envoy.gateway.set_stable(model, STABLE)
    assert answered_by(envoy.url, model, 20) == {STABLE: 20}
    envoy.gateway.set_weight(model, CANDIDATE, 10)
    engine.forget()
    found = answered_by(envoy.url, model, 600)
    assert_share(found, 10)
    assert engine.requests == found
    envoy.gateway.set_weight(model, CANDIDATE, 100)
    assert answered_by(envoy.url, model, 20) == {CANDIDATE: 20}
    envoy.gateway.set_weight(model, None, 0)
    assert answered_by(envoy.url, model, 20) == {STABLE: 20}


def test_a_change_is_in_force_when_it_returns(envoy: Envoy, model: str) -> None:
    for weight in (0, 100) * 8:
        envoy.gateway.set_weight(model, CANDIDATE, weight)
        assert answered_by(envoy.url, model, 4) == {CANDIDATE if weight else BASE: 4}


@contextmanager
def constant_load(url: str, model: str) -> Iterator[list[httpx.Response | httpx.HTTPError]]:
    """Three clients that ask without a pause, every third request streamed; what they got."""
    got: list[httpx.Response | httpx.HTTPError] = []
    stop = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                body = {"model": model, "messages": [], "stream": number % 3 == 0}
                try:
                    got.append(client.post(CHAT, json=body))
                except httpx.HTTPError as error:
                    got.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield got
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_weights_change_under_load_without_one_failed_request(envoy: Envoy, model: str) -> None:
    gateway = envoy.gateway
    gateway.set_stable(model, STABLE)
    assert envoy.process
    pid = envoy.process.pid
    with constant_load(envoy.url, model) as got:
        for weight in (10, 50, 100, 0, 10, 50, 100):
            gateway.set_weight(model, CANDIDATE, weight)
            time.sleep(0.05)
        gateway.set_stable(model, CANDIDATE)
        gateway.set_stable(f"{model}-other", STABLE)  # new clusters come up beside it
        time.sleep(0.1)
        assert answered_by(envoy.url, model, 20) == {CANDIDATE: 20}
    failed = [one for one in got if isinstance(one, httpx.HTTPError) or one.status_code != 200]
    assert not failed, f"{len(failed)} of {len(got)}: {failed[0]!r}"
    assert {one.headers[VERSION_HEADER] for one in got if isinstance(one, httpx.Response)} == {STABLE, CANDIDATE}
    assert envoy.process.poll() is None
    assert envoy.process.pid == pid


def test_a_killed_envoy_comes_back_with_the_same_split(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        envoy.gateway.set_weight("tickets", CANDIDATE, 50)
        envoy.kill()
        envoy.start()
        assert_share(answered_by(envoy.url, "tickets", 200), 50)


def test_what_was_wanted_while_envoy_was_down_is_served_when_it_is_back(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url) as envoy:
        envoy.kill()
        wanted = Split("tickets", STABLE, CANDIDATE, 100)
        with pytest.raises(GatewayNotApplied, match=r"serves routes no answer, required [0-9a-f]{16} within 0 s"):
            envoy.gateway.change("tickets", lambda _: wanted, timeout=0.1)
        assert envoy.gateway.splits() == {"tickets": wanted}
        envoy.start()
        assert answered_by(envoy.url, "tickets", 5) == {CANDIDATE: 5}
        assert LocalTarget(envoy.gateway).stable("tickets") == STABLE


def test_a_hundred_models_are_served_and_listed(engine: FakeEngine, tmp_path: Path) -> None:
    """The listing is longer than Envoy's own limit of a direct response."""
    names = [f"tickets-of-a-department-with-a-long-name-{number:03}" for number in range(100)]
    (tmp_path / "splits.json").write_text(json.dumps([asdict(Split(name, STABLE)) for name in names]))
    with running_envoy(tmp_path, engine.url) as envoy:
        listing = httpx.get(f"{envoy.url}/v1/models").json()
        assert [card["id"] for card in listing["data"]] == [*names, BASE]
        assert answered_by(envoy.url, names[-1], 1) == {STABLE: 1}
        assert_openai_error(httpx.post(f"{envoy.url}{CHAT}", json={"model": "nobody"}), 404)


def test_an_install_waits_for_a_change_in_progress(engine: FakeEngine, tmp_path: Path) -> None:
    """`liftlock up` during a release must not write routes from splits that it read before."""
    with running_envoy(tmp_path, engine.url) as envoy, ThreadPoolExecutor(1) as pool:

        def slow(split: Split | None) -> Split:
            pending.append(pool.submit(envoy.gateway.install, *ports))
            time.sleep(0.2)
            assert not pending[0].done()
            return Split("tickets", STABLE)

        pending: list[Any] = []
        ports = (urlsplit(envoy.url).port or 0, urlsplit(envoy.gateway.admin_url).port or 0)
        envoy.gateway.change("tickets", slow)
        pending[0].result()
        assert answered_by(envoy.url, "tickets", 5) == {STABLE: 5}


def test_an_engine_that_is_down_is_said_with_the_version_that_was_meant(tmp_path: Path) -> None:
    with running_envoy(tmp_path, "http://127.0.0.1:1") as lonely, httpx.Client() as client:
        lonely.gateway.set_stable("tickets", STABLE)
        sample = ask(client, lonely.url, "tickets", [], VERSION_HEADER)
        assert (sample.ok, sample.first_token_seconds) == (False, None)
        assert sample.error.startswith("HTTP 503")
        assert sample.version == STABLE
