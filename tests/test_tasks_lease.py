"""Leases: held while the holder lives, swept when it is silent, and the Prefect run of a killed holder Crashed within 30 s."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from tasks.lease import BEAT_SECONDS, LEASE_SECONDS, Lease, LeaseLost, crash_flow_run, sweep
from tasks.promotion.database import connect
from tests.fix_prefect import PrefectServer
from tests.fix_promotion import killed

SHORT = 1.0


@pytest.fixture
def connecting(database: str) -> Callable[[], object]:
    return partial(connect, database)


def held(connecting: object, seconds: float = SHORT, flow_run: str | None = "f") -> Lease:
    return Lease(connecting, "run-1", "tickets", flow_run, seconds)  # type: ignore[arg-type]


def swept(connecting: object) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    sweep(connecting, lambda flow_run, message: told.append((flow_run, message)))  # type: ignore[arg-type]
    return told


def test_a_lease_that_is_held_outlives_its_length_and_ends_with_its_holder(connecting: object) -> None:
    with held(connecting) as lease:
        lease.begin("train")
        time.sleep(1.5 * SHORT)
        assert swept(connecting) == []
        lease.begin("evaluate")
    time.sleep(1.2 * SHORT)
    assert swept(connecting) == []


def test_a_killed_holder_is_swept_once_and_its_stage_is_named(connecting: object) -> None:
    import os
    import signal

    def die() -> None:
        with held(connecting) as lease:
            lease.begin("train")
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(die)
    assert swept(connecting) == []
    time.sleep(1.2 * SHORT)
    found = swept(connecting)
    assert [flow_run for flow_run, _ in found] == ["f"]
    assert "nobody works on the stage train of run run-1" in found[0][1]
    assert swept(connecting) == []


def test_where_prefect_cannot_be_told_the_lease_stays_for_the_next_sweep(connecting: object) -> None:
    with connect(connecting.keywords.get("dsn") or connecting.args[0]) as connection:  # type: ignore[attr-defined]
        connection.execute(
            "INSERT INTO stage_lease VALUES ('run-1', gen_random_uuid(), 'tickets', 'train', 'f', clock_timestamp())"
        )

    def down(*_: str) -> None:
        raise ConnectionError("no Prefect")

    with pytest.raises(ConnectionError):
        sweep(connecting, down)  # type: ignore[arg-type]
    assert len(swept(connecting)) == 1


def test_who_was_silent_too_long_stops_at_the_next_stage(connecting: object) -> None:
    with held(connecting, 60) as lease:
        lease.begin("train")
        with connect(connecting.args[0]) as connection:  # type: ignore[attr-defined]
            connection.execute("UPDATE stage_lease SET expires = clock_timestamp()")
        with pytest.raises(LeaseLost, match=r"lost its lease before the stage evaluate; start it again"):
            lease.begin("evaluate")


def test_a_second_start_of_the_run_takes_the_lease_from_the_first(connecting: object) -> None:
    with held(connecting, 60) as first, held(connecting, 60) as second:
        second.begin("train")
        with pytest.raises(LeaseLost):
            first.begin("train")


def test_a_killed_flow_run_is_crashed_within_thirty_seconds(database: str, prefect_server: PrefectServer) -> None:
    """A real flow on a real Prefect server; the bound is counted from the kill, as a watching person would."""
    flow = """
import sys, time
from functools import partial
from pathlib import Path
from prefect import flow
from tasks.lease import leased
from tasks.run import start_run

@flow
def released():
    run = start_run(Path(sys.argv[2]), Path("spec"), "tickets", resume=False, fresh=False, quiet=True)
    with leased(run, sys.argv[1]):
        run.begin("train")
        print("training", flush=True)
        time.sleep(600)
released()
"""
    process = prefect_server.python(flow, database, str(prefect_server.home / "state"))
    assert process.stdout
    assert any("training" in line for line in process.stdout)
    process.kill()
    process.wait()
    killed_at = time.monotonic()
    connecting = partial(connect, database)
    with connecting() as connection:
        row = connection.execute("SELECT flow_run_id FROM stage_lease").fetchone()
    assert row
    assert prefect_server.get(f"/flow_runs/{row[0]}")["state"]["type"] == "RUNNING"
    while not sweep(connecting, partial(crash_flow_run, prefect_server.api)):
        time.sleep(BEAT_SECONDS)
        assert time.monotonic() - killed_at < LEASE_SECONDS + 3 * BEAT_SECONDS < 30
    state = prefect_server.get(f"/flow_runs/{row[0]}")["state"]
    assert (state["type"], "stage train" in state["message"]) == ("CRASHED", True)
    crash_flow_run(prefect_server.api, row[0], "a second time")  # one that ended is left
    assert "second" not in prefect_server.get(f"/flow_runs/{row[0]}")["state"]["message"]
