"""Promotion on the whole stack: rollback and promotion under a client, moves by hand, and releases that the worker runs."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest

from tasks.promotion import events
from tests.fix_stack import ROOT, Stack, quick_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
unproven = pytest.mark.skip(reason="written, but not yet seen to pass from beginning to end")
NAME = "promoted"
A_SECOND = 2  # the engine of a small machine answers about six a second


@dataclass
class Caller:
    """Asks A_SECOND times a second, each request in its own time, whether the one before was answered or not."""

    url: str
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Caller:
        self.client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=200))
        self.asking: list[threading.Thread] = []
        self.clock = threading.Thread(target=self._tick, daemon=True)
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.clock.join()
        for thread in self.asking:
            thread.join(60)
        self.client.close()

    def _tick(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            thread = threading.Thread(target=self._ask, daemon=True)
            thread.start()
            self.asking.append(thread)
            due += 1 / A_SECOND
            time.sleep(max(0.0, due - time.monotonic()))

    def _ask(self) -> None:
        body = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
        began = time.monotonic()
        try:
            answer = self.client.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        self.answered += 1
        self.seconds.append(time.monotonic() - began)
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")


@pytest.fixture(scope="module")
def versions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two champions, one after the other; the spec of the second."""
    for seed in (0, 1):
        spec = quick_spec(tmp_path_factory.mktemp(f"seed{seed}"), NAME, seed=seed, items=32)
        done = stack.run("release", str(spec))
        assert done.returncode == 0, done.stderr
    return spec


def client_of(stack: Stack) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"http://127.0.0.1:{stack.ports()['mlflow']}")


def champion(stack: Stack) -> str:
    return str(client_of(stack).get_model_version_by_alias(NAME, "champion").version)


def wait_until(what: str, holds: Any, seconds: float) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began


def prefect(stack: Stack, path: str, body: Any = None) -> Any:
    url = f"http://127.0.0.1:{stack.ports()['prefect']}/api{path}"
    answer = httpx.get(url, timeout=30) if body is None else httpx.post(url, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def test_after_a_rollback_the_alias_names_what_is_served(stack: Stack, versions: Path) -> None:
    assert champion(stack) == "2"
    done = stack.run("rollback", NAME, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to_version"] == champion(stack) == "1"
    shown = json.loads(stack.run("show", NAME, "--json").stdout)
    assert (shown["coherent"], shown["served_version"]) == (True, "1")


@unproven
def test_ten_promotions_and_rollbacks_under_a_client_fail_no_request(stack: Stack, versions: Path) -> None:
    with Caller(stack.gateway) as caller:
        for turn in range(5):
            up = stack.run("promote", f"{NAME}/2", "--to", "champion", "--reason", f"turn {turn}")
            assert up.returncode == 0, up.stderr
            assert champion(stack) == "2"
            down = stack.run("rollback", NAME)
            assert down.returncode == 0, down.stderr
            assert champion(stack) == "1"
    slowest = max(caller.seconds)
    print(f"{caller.answered} requests answered, {len(caller.failed)} failed, slowest {slowest:.1f} s")
    assert caller.failed == []
    assert caller.answered > 100
    assert stack.run("ledger", "verify").returncode == 0


@unproven
def test_an_alias_on_a_version_without_evidence_is_back_within_sixty_seconds(stack: Stack, versions: Path) -> None:
    client = client_of(stack)
    before = champion(stack)
    run = client.get_model_version(NAME, "1").run_id
    made = str(client.create_model_version(NAME, client.get_model_version(NAME, "1").source, run).version)
    client.set_registered_model_alias(NAME, "champion", made)
    took = wait_until("the alias is back", lambda: champion(stack) == before, 60)
    print(f"back after {took:.1f} s")
    wait_until("the reason", lambda: "liftlock.refused" in client.get_model_version(NAME, made).tags, 20)
    assert "passed on to be settled" in (stack.state / "logs" / "watch.log").read_text()


@unproven
def test_an_alias_on_a_version_with_evidence_is_promoted_by_the_worker(stack: Stack, versions: Path) -> None:
    """The chain: alias requested, put back, event, the deployment promote, canary, champion."""
    other = "2" if champion(stack) == "1" else "1"
    client_of(stack).set_registered_model_alias(NAME, "champion", other)
    wait_until("the request is put back", lambda: champion(stack) != other, 60)
    wait_until("the worker promoted it", lambda: champion(stack) == other, 300)
    story = json.loads(stack.run("history", NAME, "--json").stdout)
    assert [(one["kind"], one["actor"]) for one in story[-2:]] == [("put_back", "mlflow"), ("move", "mlflow")]


def release_runs(stack: Stack) -> list[dict[str, Any]]:
    found = prefect(stack, "/flow_runs/filter", {"flows": {"name": {"any_": ["release"]}}, "sort": "START_TIME_DESC"})
    return [one for one in found if one["deployment_id"]]


@unproven
def test_the_worker_runs_a_manual_a_triggered_and_a_scheduled_release(stack: Stack, versions: Path) -> None:
    deployment = prefect(stack, "/deployments/name/release/local")
    parameters = {"spec_file": str(versions)}
    prefect(stack, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    changed = events.event("liftlock.dataset.changed", NAME, {}, parameters, f"{stack.state}", events.now())
    prefect(stack, "/events", [changed])
    schedule = [{"active": True, "schedule": {"interval": 60}, "parameters": parameters}]
    prefect(stack, f"/deployments/{deployment['id']}/schedules", schedule)
    kinds = {"manual": lambda one: not one["auto_scheduled"] and not one["created_by"],
             "triggered": lambda one: (one["created_by"] or {}).get("type") == "AUTOMATION",
             "scheduled": lambda one: one["auto_scheduled"]}  # fmt: skip

    def done() -> bool:
        good = [one for one in release_runs(stack) if one["state_type"] == "COMPLETED"]
        return all(any(kind(one) for one in good) for kind in kinds.values())

    try:
        wait_until(f"all of {list(kinds)} completed", done, 600)
    finally:
        for one in prefect(stack, f"/deployments/{deployment['id']}/schedules"):
            httpx.delete(
                f"http://127.0.0.1:{stack.ports()['prefect']}/api/deployments/{deployment['id']}/schedules/{one['id']}"
            )
    run = next(one for one in release_runs(stack) if one["state_type"] == "COMPLETED")
    assert run["name"].startswith(f"{NAME} ")
    assert {f"model:{NAME}", "verdict:champion"} <= set(run["tags"])


@unproven
def test_a_killed_worker_run_is_crashed_and_the_next_one_goes_on(stack: Stack, versions: Path) -> None:
    """The flow's process and its worker die; nobody but the lease can tell."""
    import signal

    import psutil

    deployment = prefect(stack, "/deployments/name/release/local")
    body = {"parameters": {"spec_file": str(versions), "fresh": True}}
    run = prefect(stack, f"/deployments/{deployment['id']}/create_flow_run", body)["id"]
    wait_until("it runs", lambda: prefect(stack, f"/flow_runs/{run}")["state_type"] == "RUNNING", 120)
    wait_until("its lease", lambda: run in _leases(stack), 60)
    for process in psutil.process_iter(["environ", "cmdline"]):
        environment, line = process.info["environ"] or {}, " ".join(process.info["cmdline"] or ())
        ours = environment.get("LIFTLOCK_STATE") == str(stack.state)
        if ours and (environment.get("PREFECT__FLOW_RUN_ID") == run or "prefect worker start" in line):
            os.kill(process.pid, signal.SIGKILL)
    took = wait_until("Crashed", lambda: prefect(stack, f"/flow_runs/{run}")["state_type"] == "CRASHED", 30)
    print(f"Crashed after {took:.1f} s")
    done = subprocess.run(
        [*stack.argv, "release", str(versions)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=stack.environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "from the cache" in done.stderr


def _leases(stack: Stack) -> list[str]:
    import psycopg

    from tasks.settings import Settings
    from tasks.stack.addresses import addresses

    with psycopg.connect(addresses(Settings(state=stack.state)).dsn("liftlock")) as connection:
        return [row[0] for row in connection.execute("SELECT flow_run_id FROM stage_lease").fetchall()]
