"""Promotion on the whole stack: moves under a client, moves by hand, and what the worker runs: releases, gate, promotion, approval.

Two versions of one model are released once for all tests; each test brings the champion to where it needs it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
import psycopg
import pytest

from tasks.promotion import events
from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tests.fix_caller import Caller
from tests.fix_stack import NAME, Stack, Takeover, quick_spec

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(3600)]
GIVE_UP_SECONDS = 600  # a busy machine is slow, not wrong; the promises have their own numbers
A_SECOND = 2  # vLLM on a small machine answers about six a second


def client_of(stack: Stack) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"http://127.0.0.1:{stack.ports()['mlflow']}")


def champion_of(stack: Stack) -> str:
    return str(client_of(stack).get_model_version_by_alias(NAME, "champion").version)


def bring(stack: Stack, version: str) -> None:
    if champion_of(stack) != version:
        done = stack.run("rollback", NAME, "--to", version)
        assert done.returncode == 0, done.stderr


def wait_until(what: str, holds: Callable[[], bool], seconds: float = GIVE_UP_SECONDS) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began


def prefect(stack: Stack, path: str, body: Any = None, method: str = "") -> Any:
    url = f"http://127.0.0.1:{stack.ports()['prefect']}/api{path}"
    answer = httpx.request(method or ("GET" if body is None else "POST"), url, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def start(stack: Stack, deployment: str, **parameters: Any) -> str:
    """A run on the worker; its id."""
    found = prefect(stack, f"/deployments/name/{deployment}")
    return str(prefect(stack, f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])


def state_of(stack: Stack, run: str) -> str:
    return str(prefect(stack, f"/flow_runs/{run}")["state_type"])


def story(stack: Stack, last: int) -> list[tuple[str, str, str, str]]:
    lines = json.loads(stack.run("history", NAME, "--json").stdout)
    return [(one["alias"], one["kind"], one["to_version"], one["actor"]) for one in lines[-last:]]


def test_a_client_sees_no_failed_request_while_a_new_version_takes_over(takeover: Takeover) -> None:
    assert takeover.new != takeover.old
    assert (takeover.failed, takeover.answered > 20) == ([], True)


def test_after_a_rollback_the_alias_names_what_is_served(stack: Stack, takeover: Takeover) -> None:
    bring(stack, takeover.new)
    done = stack.run("rollback", NAME, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to_version"] == champion_of(stack) == takeover.old
    shown = json.loads(stack.run("show", NAME, "--json").stdout)
    assert (shown["coherent"], shown["served_version"]) == (True, takeover.old)
    settled = stack.run("reconcile", NAME, "--json")
    assert (settled.returncode, json.loads(settled.stdout)) == (0, [])


def test_what_differs_between_two_versions_is_told(stack: Stack, takeover: Takeover) -> None:
    done = stack.run("diff", NAME, takeover.old, takeover.new, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"]["seed"] == ["0", "1"]  # as the two specs have it
    old, new = found["digests"]["adapter_sha256"]
    assert old != new
    assert "do not differ" in stack.run("diff", NAME, takeover.old, takeover.old).stdout
    absent = stack.run("diff", NAME, takeover.old, "9999")
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "there is none in MLflow" in " ".join(absent.stderr.split())


def test_an_alias_on_a_version_without_evidence_is_back_within_sixty_seconds(stack: Stack, takeover: Takeover) -> None:
    client, before = client_of(stack), champion_of(stack)
    source = client.get_model_version(NAME, takeover.old)
    made = str(client.create_model_version(NAME, source.source, source.run_id).version)
    client.set_registered_model_alias(NAME, "champion", made)
    wait_until("the alias is back", lambda: champion_of(stack) == before, 60)
    wait_until("the reason", lambda: "liftlock.refused" in client.get_model_version(NAME, made).tags)
    assert "passed on to be settled" in (stack.state / "logs" / "watch.log").read_text()


def test_a_champion_that_is_set_by_hand_is_promoted_by_the_worker_and_no_request_fails(
    stack: Stack, takeover: Takeover
) -> None:
    """The chain: alias requested, put back, event, the deployment promote, canary, champion."""
    bring(stack, takeover.old)
    with Caller(stack.gateway, NAME, A_SECOND) as caller:
        client_of(stack).set_registered_model_alias(NAME, "champion", takeover.new)
        wait_until("the request is put back", lambda: champion_of(stack) == takeover.old)
        wait_until("the worker promoted it", lambda: champion_of(stack) == takeover.new)
    assert (caller.failed, caller.answered > 20) == ([], True)
    assert story(stack, 2) == [
        ("champion", "put_back", takeover.old, "mlflow"), ("champion", "move", takeover.new, "mlflow")
    ]  # fmt: skip


def test_a_candidate_that_is_set_by_hand_goes_through_the_gate_and_is_promoted(
    stack: Stack, takeover: Takeover
) -> None:
    """The chain: candidate registered, event, the deployment gate, event, the deployment promote, canary, champion."""
    bring(stack, takeover.new)
    client_of(stack).set_registered_model_alias(NAME, "candidate", takeover.old)
    wait_until("the worker promoted it", lambda: champion_of(stack) == takeover.old)
    assert story(stack, 2) == [
        ("candidate", "move", takeover.old, "mlflow"), ("champion", "move", takeover.old, "mlflow")
    ]  # fmt: skip
    said = client_of(stack).get_model_version(NAME, takeover.old).tags["liftlock.gate"]
    assert said.startswith(f"passed against version {takeover.new}: ")
    runs = prefect(stack, "/flow_runs/filter", {"flows": {"name": {"any_": ["gate"]}}})
    assert [(one["state_type"], one["created_by"]["type"]) for one in runs] == [("COMPLETED", "AUTOMATION")]


def test_a_release_on_the_worker_waits_for_people_without_a_process_and_goes_on(
    stack: Stack, takeover: Takeover
) -> None:
    bring(stack, takeover.old)
    run = start(stack, "release/local", spec_file=str(_approved(takeover)), actor="ada")
    wait_until("it is suspended", lambda: state_of(stack, run) == "PAUSED")
    wait_until("its process is gone", lambda: not _processes(stack, run))
    assert champion_of(stack) == takeover.old
    assert stack.run("approve", run, "--by", "ada").returncode == 3  # who asked for it
    assert stack.run("approve", run, "--by", "bo").returncode == 0
    wait_until("it ended", lambda: state_of(stack, run) in ("COMPLETED", "FAILED", "CRASHED"))
    assert (state_of(stack, run), champion_of(stack)) == ("COMPLETED", takeover.new)
    assert [(kind, actor) for _, kind, _, actor in story(stack, 3)] == [
        ("approval_requested", "ada"), ("approved", "bo"), ("move", "ada")
    ]  # fmt: skip


def _approved(takeover: Takeover) -> Path:
    spec = takeover.spec.with_name("approved.yaml")
    spec.write_text(takeover.spec.read_text() + "approval: {champion: one}\n")
    return spec


def _processes(stack: Stack, run: str) -> list[psutil.Process]:
    """Those of a flow run on this stack's worker."""
    found = []
    for process in psutil.process_iter(["environ"]):
        environment = process.info["environ"] or {}
        if environment.get("LIFTLOCK_STATE") == str(stack.state) and environment.get("PREFECT__FLOW_RUN_ID") == run:
            found.append(process)
    return found


KINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "manual": lambda run: not run["auto_scheduled"] and not run["created_by"],
    "triggered": lambda run: (run["created_by"] or {}).get("type") == "AUTOMATION",
    "scheduled": lambda run: bool(run["auto_scheduled"]),
}


def test_the_worker_runs_a_manual_a_triggered_and_a_scheduled_release(stack: Stack, takeover: Takeover) -> None:
    """The schedule is one of seconds. Nothing changed, so the stages come from the cache, and nobody is asked for approval."""
    bring(stack, takeover.new)
    deployment = prefect(stack, "/deployments/name/release/local")["id"]
    of_it = {"deployments": {"id": {"any_": [deployment]}}}
    earlier = {run["id"] for run in prefect(stack, "/flow_runs/filter", of_it)}
    parameters = {"spec_file": str(_approved(takeover))}
    manual = start(stack, "release/local", **parameters)
    changed = events.event("liftlock.dataset.changed", NAME, {}, parameters, f"{time.time()}", events.now())
    prefect(stack, "/events", [changed])
    schedule = {"active": True, "schedule": {"interval": 20}, "parameters": parameters, "max_scheduled_runs": 1}
    (made,) = prefect(stack, f"/deployments/{deployment}/schedules", [schedule])

    def runs(*states: str) -> list[dict[str, Any]]:
        found = prefect(stack, "/flow_runs/filter", of_it)
        return [run for run in found if run["state_type"] in states and run["id"] not in earlier]

    def done() -> bool:
        return all(any(kind(run) for run in runs("COMPLETED")) for kind in KINDS.values())

    try:
        wait_until(f"all of {list(KINDS)} completed", done)
    finally:
        prefect(stack, f"/deployments/{deployment}/schedules/{made['id']}", method="DELETE")
    wait_until("the schedule's next run ended", lambda: not runs("PENDING", "RUNNING"))
    run = prefect(stack, f"/flow_runs/{manual}")
    assert run["name"].startswith(f"{NAME} ")
    assert {f"model:{NAME}", f"version:{takeover.new}", "verdict:champion"} <= set(run["tags"])
    document = stack.last_run()
    assert document["champion"]["version"] == takeover.new
    assert all(stage["cached"] for stage in document["stages"] if stage["name"] != "prepare")


def test_the_champion_is_asked_twice_and_a_margin_below_its_noise_is_refused(stack: Stack, takeover: Takeover) -> None:
    done = stack.run("gate", "--aa", str(takeover.spec), "--json")
    assert done.returncode == 0, done.stderr
    floor = json.loads(done.stdout)
    assert (floor["items"], floor["margin"], floor["allowed"]) == (32, 0.5, True)
    assert 0.05 < floor["smallest_margin"] < 0.5  # two runs without a flip do not claim that there are none
    narrow = takeover.spec.with_name("narrow.yaml")
    narrow.write_text(takeover.spec.read_text().replace("margin: 0.5", "margin: 0.01"))
    refused = stack.run("release", str(narrow))
    assert refused.returncode == 2
    assert "gate.margin is 0.01" in refused.stderr


def test_killed_with_its_worker_and_the_servers_a_run_is_crashed_and_the_next_one_goes_on(
    stack: Stack, champion: dict[str, Any], tmp_path: Path
) -> None:
    """Nobody but the lease can tell that the flow's process is gone. Nothing is done twice."""
    spec = quick_spec(tmp_path, "killed", seed=2)
    run = start(stack, "release/local", spec_file=str(spec))
    wait_until("training ends", lambda: _stage(stack, run) not in (None, "start", "prepare", "train"))
    (document,) = (one for one in _documents(stack) if one["name"] == "killed")
    for process in _processes(stack, run):
        process.kill()
    for command in ("vllm serve", "envoy --config-path", "mlflow server", "prefect worker"):
        os.kill(stack.pid_of(command), signal.SIGKILL)
    wait_until("Crashed", lambda: state_of(stack, run) == "CRASHED", 30)
    done = stack.run("release", str(spec), "--resume", "--json")
    assert done.returncode == 0, done.stderr
    resumed = json.loads(done.stdout)
    assert resumed["run_id"] == document["run_id"]
    assert {stage["name"]: stage["cached"] for stage in resumed["stages"]}["train"]
    client = client_of(stack)
    assert len(client.search_model_versions("name = 'killed'")) == 1
    assert len(client.search_runs([client.get_experiment_by_name("killed").experiment_id])) == 1
    assert stack.ask("ticket-router") == "shipping"


def _documents(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (stack.state / "runs").glob("*/run.json")]


def _stage(stack: Stack, run: str) -> str | None:
    """The stage at which the run's lease says it is; None where it holds none."""
    with psycopg.connect(addresses(Settings(state=stack.state)).dsn("liftlock")) as connection:
        row = connection.execute("SELECT stage FROM stage_lease WHERE flow_run_id = %s", [run]).fetchone()
    return row and str(row[0])
