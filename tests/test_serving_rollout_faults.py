"""Faults around a rollout, real ones: an engine, a gateway and a pipeline that are killed, and a state that cannot be written.

A hung engine is in test_tasks_drill.py; a clock that jumps in test_serving_rollout_machine.py; two rollouts in test_serving_rollout_resume.py.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.gateway.state import Gateway
from serving.rollout.ask import ask
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout, Sample, Step
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy, running_envoy
from tests.rollout_process import POLICY, PROMPTS, run

ROOT = Path(__file__).parents[1]
STABLE, CANDIDATE = "faulted-stable", "faulted-candidate"


@contextmanager
def client(url: str, model: str) -> Iterator[list[Sample]]:
    """Somebody who asks the whole time."""
    got: list[Sample] = []
    stop = threading.Event()

    def asking() -> None:
        with httpx.Client(timeout=30) as one:
            for messages in itertools.takewhile(lambda _: not stop.is_set(), itertools.cycle(PROMPTS)):
                got.append(ask(one, url, model, messages, VERSION_HEADER))

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        yield got
    finally:
        stop.set()
        thread.join()


def await_phase(folder: Path, phase: str, weight: int | None = None) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = Rollouts(folder).all()
        if found and found[-1].state.phase == phase and weight in (None, found[-1].state.weight):
            return
        time.sleep(0.002)
    raise AssertionError(f"never {phase}")


def in_background(gateway: Gateway, url: str, model: str, folder: Path) -> tuple[threading.Thread, list[str]]:
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(run(gateway, url, model, CANDIDATE, folder)), daemon=True)
    thread.start()
    return thread, ended


def test_a_candidates_engine_that_is_killed_mid_stream_costs_stable_nothing(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    engine.models[STABLE] = Behaviour()
    envoy.gateway.set_stable(model, STABLE)
    argv = [sys.executable, "-m", "tests.bench.instant_engine"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as second, client(envoy.url, model) as got:
        assert second.stdout
        own = f"http://127.0.0.1:{second.stdout.readline().strip()}"
        plan = Plan(model, CANDIDATE, "r", own, [[{"role": "user", "content": "long"}]], (50, 100), 1, POLICY, 60, 2)
        target = LocalTarget(envoy.gateway, candidate_engine=own)
        traffic = Traffic(envoy.url, model, plan.prompts, VERSION_HEADER)
        ended: list[Rollout] = []
        arguments = (Rollouts(tmp_path), plan, target, traffic, lambda _: None)
        thread = threading.Thread(target=lambda: ended.append(roll_out(*arguments)))
        thread.start()
        await_phase(tmp_path, "watching")
        time.sleep(0.7)  # streams of 1.5 s are open
        second.kill()
        thread.join(60)
    (rollout,) = ended
    assert rollout.outcome == "undone"
    assert envoy.gateway.splits()[model] == Split(model, STABLE)
    assert {one.version for one in got if not one.ok} <= {CANDIDATE}
    assert got[-1].ok


def test_a_gateway_that_is_killed_in_a_step_comes_back_with_stable_alone(engine: FakeEngine, tmp_path: Path) -> None:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour(chunk_seconds=0.1)}
    with running_envoy(tmp_path / "gateway", engine.url) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        thread, ended = in_background(envoy.gateway, envoy.url, "tickets", tmp_path / "rollouts")
        await_phase(tmp_path / "rollouts", "watching")
        envoy.kill()
        time.sleep(0.5)
        envoy.start()
        thread.join(90)
        assert ended == ["undone"]
        assert envoy.gateway.splits()["tickets"] == Split("tickets", STABLE)
        with httpx.Client() as one:
            assert {ask(one, envoy.url, "tickets", PROMPTS[0], VERSION_HEADER).served for _ in range(10)} == {STABLE}


@pytest.mark.parametrize(("phase", "good"), [("warming", True), ("watching", True), ("draining", False)])
def test_a_pipeline_that_is_killed_is_gone_on_with_and_no_client_notices(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path, phase: str, good: bool
) -> None:
    """SIGKILL in the phase, by what is written on disk; the same release again finishes what was begun."""
    engine.models |= {
        STABLE: Behaviour(chunk_seconds=0.05),
        CANDIDATE: Behaviour(first_token_seconds=0.05 if good else 1.0, chunk_seconds=0.05),
    }
    gateway = envoy.gateway
    gateway.set_stable(model, STABLE)
    asked = {
        "folder": str(gateway.folder), "admin_url": gateway.admin_url, "engine_url": gateway.engine_url,
        "base_model": gateway.base_model, "url": envoy.url, "model": model, "candidate": CANDIDATE,
    }  # fmt: skip
    with client(envoy.url, model) as got:
        argv = [sys.executable, "-m", "tests.rollout_process", json.dumps(asked), str(tmp_path)]
        with subprocess.Popen(argv, cwd=ROOT) as pipeline:
            await_phase(tmp_path, phase)
            pipeline.kill()
        outcome = run(gateway, envoy.url, model, CANDIDATE, tmp_path)
    assert outcome == ("completed" if good else "undone")
    assert gateway.splits()[model] == Split(model, CANDIDATE if good else STABLE)
    assert len(Rollouts(tmp_path).all()) == 1
    assert [one.error for one in got if not one.ok] == []


def test_a_state_that_cannot_be_written_gives_stable_everything_back(
    envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path
) -> None:
    """As on a full disk. The file is written beside the old one first: a folder stands in that place."""
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    envoy.gateway.set_stable(model, STABLE)

    def fill(step: Step) -> None:
        (tmp_path / "0001" / f".state.json.{os.getpid()}").mkdir()

    plan = Plan(model, CANDIDATE, "r", engine.url, PROMPTS, (50, 90, 100), 3, POLICY, 60, 2)
    traffic = Traffic(envoy.url, model, PROMPTS, VERSION_HEADER)
    with pytest.raises(OSError, match=r"state\.json"):
        roll_out(Rollouts(tmp_path), plan, LocalTarget(envoy.gateway), traffic, fill)
    assert envoy.gateway.splits()[model] == Split(model, STABLE)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that can be filled. Skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (folder / "filling").open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


def test_a_disk_that_fills_up_in_a_step_gives_stable_everything_back(engine: FakeEngine, tmp_path: Path) -> None:
    """State, gateway and log are on it: the undo is written into the room that was kept for it."""
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    with small_disk(tmp_path / "disk", "8m") as disk, running_envoy(disk / "gateway", engine.url) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        plan = Plan("tickets", CANDIDATE, "r", engine.url, PROMPTS, (50, 90, 100), 3, POLICY, 60, 2)
        traffic = Traffic(envoy.url, "tickets", PROMPTS, VERSION_HEADER)
        rollouts = Rollouts(disk / "rollouts")
        with pytest.raises(OSError, match="No space left"):
            roll_out(rollouts, plan, LocalTarget(envoy.gateway), traffic, lambda _: fill_up(disk))
        assert envoy.gateway.splits()["tickets"] == Split("tickets", STABLE)
        with httpx.Client() as one:
            assert {ask(one, envoy.url, "tickets", PROMPTS[0], VERSION_HEADER).served for _ in range(10)} == {STABLE}
        assert rollouts.last().state.phase == "undone"


def test_no_candidate_gets_weight_where_an_undo_could_not_be_written(engine: FakeEngine, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk, running_envoy(disk / "gateway", engine.url) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        fill_up(disk)
        with pytest.raises(OSError, match="No space left"):
            LocalTarget(envoy.gateway).weigh("tickets", CANDIDATE, 10)
        assert envoy.gateway.splits()["tickets"] == Split("tickets", STABLE)
