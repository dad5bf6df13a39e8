"""Shadow traffic through the real Envoy: the candidate answers copies that nobody sees, and a bad one meets no client."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.comparison import Comparison, Tell, Verdict
from serving.rollout.golden import record
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.mirror import Drawn, Shadow, shadow_finding
from serving.rollout.model import Rollout, Sample, Step
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tests.fix_engine import Behaviour, FakeEngine, running_engine
from tests.fix_envoy import Envoy

OLD, NEW = "tickets-1", "tickets-2"
PROMPTS = tuple(({"role": "user", "content": f"ticket {number}"},) for number in range(6))
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.0, max_first_token_ratio=8, steps=3, golden=True)


def wait_for(engine: FakeEngine, model: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while engine.requests[model] < count and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("own", [False, True], ids=["one engine", "an engine of its own"])
def test_the_candidate_gets_a_copy_under_its_name_and_the_client_stables_answer(
    envoy: Envoy, engine: FakeEngine, model: str, own: bool
) -> None:
    with running_engine() as second:
        side = second if own else engine
        engine.models[OLD] = Behaviour()
        side.models[NEW] = Behaviour()
        envoy.gateway.set_stable(model, OLD)
        envoy.gateway.set_mirror(model, NEW, 100, second.url if own else None)
        body = {"model": model, "messages": [{"role": "user", "content": "é" * 40}], "stream": True}
        for _ in range(5):
            answer = httpx.post(f"{envoy.url}/v1/chat/completions", json=body, headers={"x-request-id": "abc-1"})
            assert (answer.status_code, answer.headers[VERSION_HEADER]) == (200, OLD)
        wait_for(side, NEW, 5)
        copies = [one for one in side.asked if one.model == NEW]
        assert len(copies) == 5
        assert {json.loads(one.body)["messages"][0]["content"] for one in copies} == {"é" * 40}
        assert {one.headers["x-request-id"] for one in copies} == {"abc-1-shadow"}
        counted = envoy.gateway.counters(model, "mirror", second.url if own else None)
        assert counted["upstream_rq_total"] == 5
        envoy.gateway.set_weight(model, NEW, 10, second.url if own else None)
        assert envoy.gateway.splits()[model].mirror == 0


@contextmanager
def clients(envoy: Envoy, model: str) -> Iterator[list[Sample]]:
    got: list[Sample] = []
    stop = threading.Event()

    def run() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                got.append(ask(client, envoy.url, model, PROMPTS[len(got) % 6], VERSION_HEADER))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield got
    finally:
        stop.set()
        thread.join()


def good(tell: Tell) -> Verdict:
    tell(1, 2)
    return Verdict(True, "the gate passed", 0.8, 0.9, -0.02, 0.2)


def bad(tell: Tell) -> Verdict:
    return Verdict(False, "the gate rejected", 0.8, 0.1, -0.8, -0.6)


def broken(tell: Tell) -> Verdict:
    raise OSError("the engine does not answer")


def released(
    envoy: Envoy,
    engine: FakeEngine,
    model: str,
    folder: Path,
    new: Behaviour,
    compare: Callable[[Tell], Verdict] = good,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Rollout:
    engine.models |= {OLD: Behaviour(), NEW: Behaviour()}
    golden = record(engine.url, NEW, PROMPTS)
    engine.models[NEW] = new
    target = LocalTarget(envoy.gateway, mirror=100)
    drawn = Drawn((OLD, engine.url), (NEW, engine.url), PROMPTS, golden)
    shadow = Shadow(drawn, lambda: envoy.gateway.counters(model, "mirror"), Comparison(compare))
    plan = Plan(model, NEW, "r", engine.url, PROMPTS, (0, 50, 100), 1, POLICY, 60, 5)
    traffic = Traffic(envoy.url, model, PROMPTS, VERSION_HEADER)
    return roll_out(Rollouts(folder), plan, target, traffic, on_step, shadow=shadow)


def test_a_good_one_goes_on_to_its_first_weight(envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path) -> None:
    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    with clients(envoy, model) as got:
        found = released(envoy, engine, model, tmp_path, Behaviour())
    assert found.outcome == "completed"
    assert [step.weight for step in found.steps] == [0, 50, 100]
    assert found.steps[0].reason.startswith("shadow: ")
    gate, copies = found.steps[0].findings[-2:]
    assert (gate.metric, gate.stable, gate.candidate, gate.note) == ("gate", 0.8, 0.9, "the gate passed")
    assert copies.decision == "go_on" and not copies.note.startswith("0 of 0")
    assert [one.error for one in got if not one.ok] == []
    assert envoy.gateway.splits()[model] == Split(model, NEW)


def test_a_bad_one_is_undone_and_no_client_met_it(envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path) -> None:
    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    with clients(envoy, model) as got:
        found = released(
            envoy, engine, model, tmp_path, Behaviour(error_share=0.5)
        )  # the warm-up's one request is not hit
    assert found.outcome == "undone"
    assert found.reason.startswith("at 0 %: shadow: ")
    assert {one.served for one in got} == {OLD} and all(one.ok for one in got)
    assert envoy.gateway.splits()[model] == Split(model, OLD)


@pytest.mark.parametrize(("compare", "said"), [(bad, "the gate rejected"), (broken, "OSError: the engine does not")])
def test_one_that_the_gate_does_not_pass_where_it_is_served_gets_no_weight(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path, compare: Callable[[Tell], Verdict], said: str
) -> None:
    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    found = released(envoy, engine, model, tmp_path, Behaviour(), compare)
    assert found.outcome == "undone" and [step.weight for step in found.steps] == [0]
    assert found.reason.startswith("at 0 %: shadow: ") and said in found.reason
    assert envoy.gateway.splits()[model] == Split(model, OLD)


def test_while_the_gate_asks_nothing_is_drawn_the_hold_does_not_count_and_an_abort_ends_it(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    ended = threading.Event()
    seen: list[tuple[int, float]] = []

    def long(tell: Tell) -> Verdict:
        rollout = Rollouts(tmp_path).last()
        try:
            for done in range(10_000):
                if done in (60, 90):
                    seen.append((sum(engine.requests.values()), Rollouts(tmp_path).last().state.held_seconds))
                    if done == 90:
                        rollout.send("abort", "enough")
                tell(done, 10_000)
                time.sleep(0.02)
        finally:
            ended.set()
        raise AssertionError("nobody stopped it")

    engine.models[OLD] = Behaviour()
    envoy.gateway.set_stable(model, OLD)
    found = released(envoy, engine, model, tmp_path, Behaviour(), long)
    assert (found.outcome, found.reason) == ("undone", "enough")
    assert ended.wait(30)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("ended", "failed", "allowed", "decision"),
    [
        (0, 0, 0.0, "go_on"),
        (40, 0, 0.0, "go_on"),
        (40, 1, 0.0, "undo"),
        (400, 30, 0.1, "go_on"),
        (400, 120, 0.1, "undo"),
    ],
)
def test_failed_copies_count_as_failed_requests_do(ended: int, failed: int, allowed: float, decision: str) -> None:
    policy = AnalysisPolicy(6, allowed, 2.0)
    assert shadow_finding(ended, failed, policy).decision == decision


def test_a_shadow_has_no_weight() -> None:
    with pytest.raises(ValueError, match="a shadow needs a candidate without weight"):
        Split("tickets", OLD, NEW, 10, mirror=100)
    with pytest.raises(ValueError, match="a shadow needs a candidate without weight"):
        Split("tickets", OLD, mirror=100)
