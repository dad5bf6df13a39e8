"""Strategy swap behind the real Envoy: the gap is told to clients, the engine of before comes back, and a fallback covers the gap."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.gateway.model import Endpoint
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.kept import Rollouts
from serving.rollout.model import Rollout
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.swap import SwapTarget, gap_told
from serving.rollout.traffic import Traffic
from tests.fix_engine import BASE, Behaviour, FakeEngine, running_engine
from tests.fix_envoy import Envoy, running_envoy
from tests.fix_waiting import await_that

OLD, NEW, OTHER = "whole-1", "whole-2", "other-1"
PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.0, max_first_token_ratio=8, steps=1)
Gap = Callable[[bool], None]


def swapped(envoy: Envoy, engine: FakeEngine, model: str, folder: Path, new: Behaviour, in_gap: Gap) -> Rollout:
    """One fake engine stands for the two processes that have one address in turn; `in_gap` is called while neither serves."""
    before = {name: behaviour for name, behaviour in engine.models.items() if name != NEW}
    put: list[bool] = []

    def replace(candidate: bool) -> None:
        engine.models.clear()
        put.append(candidate)
        in_gap(candidate)
        engine.models |= before if not candidate else {**{k: v for k, v in before.items() if k != OLD}, NEW: new}

    target = SwapTarget(
        envoy.gateway, replace=replace, replaced=lambda: put[-1:] == [True], models=(model, "other"), gap_seconds=12.2, drain_limit=30,
    )  # fmt: skip
    plan = Plan(model, NEW, "r", engine.url, PROMPTS, (100,), 2, POLICY, 60, 1)
    return roll_out(Rollouts(folder), plan, target, Traffic(envoy.url, model, PROMPTS, VERSION_HEADER), lambda _: None)


def served(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    engine.models |= {OLD: Behaviour(), OTHER: Behaviour()}
    envoy.gateway.set_stable(model, OLD)
    envoy.gateway.set_stable("other", OTHER)


def post(envoy: Envoy, model: str) -> httpx.Response:
    return httpx.post(f"{envoy.url}/v1/chat/completions", json={"model": model, "messages": []}, timeout=30)


def test_in_the_gap_clients_are_told_when_to_ask_again_and_then_the_new_one_serves(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    served(envoy, engine, model)
    told: list[httpx.Response] = []
    rollout = swapped(
        envoy, engine, model, tmp_path, Behaviour(), lambda _: told.extend([post(envoy, model), post(envoy, "other")])
    )
    assert rollout.outcome == "completed"
    assert [(one.status_code, one.headers["retry-after"], one.headers["x-should-retry"]) for one in told] == [
        (503, "13", "true")
    ] * 2
    assert told[0].json()["error"]["code"] == "engine_unavailable"
    assert told[0].json()["error"]["message"] == "this model's engine is being replaced; ask again in 13 s"
    assert told[0].headers["content-type"] == "application/json"
    assert envoy.gateway.splits()[model] == Split(model, NEW)
    assert envoy.gateway.splits()["other"] == Split("other", OTHER)
    assert [post(envoy, name).headers[VERSION_HEADER] for name in (model, "other")] == [NEW, OTHER]


def test_a_bad_one_is_replaced_by_the_engine_of_before(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    served(envoy, engine, model)
    turns: list[bool] = []
    rollout = swapped(envoy, engine, model, tmp_path, Behaviour(error_share=0.25), turns.append)
    assert (rollout.outcome, turns) == ("undone", [True, False])
    assert "candidate requests failed" in rollout.reason
    assert envoy.gateway.splits()[model] == Split(model, OLD)
    assert ask(httpx.Client(), envoy.url, model, PROMPTS[0], VERSION_HEADER).served == OLD


def test_one_that_does_not_start_is_replaced_by_the_engine_of_before(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    served(envoy, engine, model)
    rollout = swapped(envoy, engine, model, tmp_path, Behaviour(loadable=False), lambda _: None)
    assert rollout.outcome == "undone" and rollout.steps == ()
    assert [post(envoy, name).headers[VERSION_HEADER] for name in (model, "other")] == [OLD, OTHER]


def test_one_that_never_answers_is_replaced_too(envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path) -> None:
    served(envoy, engine, model)

    def in_gap(candidate: bool) -> None:
        if candidate:
            raise RuntimeError("vllm: it ended while it started")

    rollout = swapped(envoy, engine, model, tmp_path, Behaviour(), in_gap)
    assert rollout.outcome == "undone" and "it ended while it started" in rollout.reason
    assert [post(envoy, name).headers[VERSION_HEADER] for name in (model, "other")] == [OLD, OTHER]


def test_a_fallback_on_another_server_covers_the_gap(tmp_path: Path) -> None:
    with running_engine() as engine, running_engine() as spare:
        spare.models = {"spare": Behaviour()}
        with running_envoy(
            tmp_path / "gateway", engine.url, fallback=(Endpoint(BASE, engine.url), Endpoint("spare", spare.url))
        ) as envoy:
            served(envoy, engine, "tickets")
            statuses: Counter[tuple[int, str]] = Counter()
            stop = threading.Event()

            def client() -> None:
                while not stop.is_set():
                    answer = post(envoy, "tickets")
                    statuses[answer.status_code, answer.headers.get(VERSION_HEADER, "")] += 1

            def answered_by(version: str) -> bool:
                return (200, version) in statuses

            thread = threading.Thread(target=client)
            thread.start()
            try:
                await_that(lambda: answered_by(OLD))
                rollout = swapped(
                    envoy,
                    engine,
                    "tickets",
                    tmp_path / "rollouts",
                    Behaviour(),
                    lambda _: await_that(lambda: answered_by("spare")),
                )
                await_that(lambda: answered_by(NEW))
            finally:
                stop.set()
                thread.join()
    assert rollout.outcome == "completed"
    assert {status for status, _ in statuses} == {200}
    assert {version for _, version in statuses} == {OLD, "spare", NEW}


def test_a_running_answer_ends_before_its_engine_is_replaced(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    served(envoy, engine, model)
    order: list[str] = []

    def says(asked: str, _: object) -> None:
        """The answer ends some time after the gap began."""
        if asked == OLD:
            await_that(lambda: post(envoy, model).status_code == 503)
            time.sleep(1.5)

    def client() -> None:
        order.append(ask(httpx.Client(timeout=60), envoy.url, model, PROMPTS[0], VERSION_HEADER).served)

    engine.says = says
    thread = threading.Thread(target=client)
    thread.start()
    await_that(lambda: engine.requests[OLD])
    try:
        swapped(envoy, engine, model, tmp_path, Behaviour(), lambda _: order.append("gap"))
    finally:
        thread.join()
        engine.says = FakeEngine().says
    assert order == [OLD, "gap"]


def test_the_gap_is_told_beforehand() -> None:
    assert gap_told(38.4, 30, None) == (
        "one engine replaces the other: its last start took 38 s, after at most 30 s of draining; "
        "clients get 503 with retry-after, because no fallback is set"
    )
    assert gap_told(None, 5, "spare").endswith(
        "how long it starts is not known here, after at most 5 s of draining; spare answers meanwhile"
    )
