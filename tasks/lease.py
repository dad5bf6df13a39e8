"""A lease on the stages of a run: held by a heartbeat, lost by silence. Whoever lost it stops at the next stage.

Prefect leaves a run whose process was killed in Running. The part `watch` of the local stack sweeps leases that ran out
and sets such a run to Crashed, within LEASE_SECONDS and two looks.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import httpx
import psycopg

from tasks.promotion.database import Connect, connect

if TYPE_CHECKING:
    from tasks.run import Run

LEASE_SECONDS, BEAT_SECONDS = 12.0, 3.0


class LeaseLost(Exception):
    """This process was silent for too long; another one may have taken the run on."""


class Lease:
    """A context manager around a run's stages; `begin` notes the stage and raises LeaseLost."""

    def __init__(
        self, connect: Connect, run_id: str, model: str, flow_run_id: str | None, seconds: float = LEASE_SECONDS
    ) -> None:
        self._connect, self._run, self._model, self._flow_run, self._seconds = (
            connect,
            run_id,
            model,
            flow_run_id,
            seconds,
        )
        self._holder, self._stage = uuid.uuid4(), "start"
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO stage_lease (run_id, holder, model, stage, flow_run_id, expires) VALUES (%s, %s, %s, %s, %s, "
                "clock_timestamp() + make_interval(secs => %s)) ON CONFLICT (run_id) DO UPDATE SET holder = EXCLUDED.holder, "
                "stage = EXCLUDED.stage, flow_run_id = EXCLUDED.flow_run_id, expires = EXCLUDED.expires",
                [self._run, self._holder, self._model, self._stage, self._flow_run, self._seconds],
            )
        self._until = time.monotonic() + self._seconds
        self._thread.start()
        return self

    def begin(self, stage: str) -> None:
        """Raises LeaseLost."""
        self._stage = stage
        if self._lost.is_set() or not self._renew():
            raise LeaseLost(
                f"{self._model}: this run was silent for more than {self._seconds:.0f} s and lost its lease before the stage "
                f"{stage}; start it again, finished stages come from the cache"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(BEAT_SECONDS)
        try:
            with self._connect() as connection:
                connection.execute(
                    "DELETE FROM stage_lease WHERE run_id = %s AND holder = %s", [self._run, self._holder]
                )
        except psycopg.OperationalError:
            return  # it runs out by itself

    def _beat(self) -> None:
        while not self._ended.wait(min(BEAT_SECONDS, self._seconds / 4)):
            if not self._renew():
                self._lost.set()
                return

    def _renew(self) -> bool:
        """False where the lease is gone. A database that does not answer is waited for until it would have run out."""
        try:
            with self._connect() as connection:
                done = connection.execute(
                    "UPDATE stage_lease SET stage = %s, expires = clock_timestamp() + make_interval(secs => %s) "
                    "WHERE run_id = %s AND holder = %s AND expires > clock_timestamp()",
                    [self._stage, self._seconds, self._run, self._holder],
                )
        except psycopg.OperationalError:
            return time.monotonic() < self._until
        self._until = time.monotonic() + self._seconds
        return done.rowcount == 1


def leased(run: Run, dsn: str) -> Lease:
    """On the run's stages, in the name of the Prefect flow run that this is in, if it is in one."""
    from prefect import runtime  # the part `watch` does not need it, and it takes seconds to import

    lease = Lease(partial(connect, dsn), run.run_id, run.name, runtime.flow_run.id)
    run.lease = lease.begin
    return lease


def sweep(connect: Connect, crash: Callable[[str, str], None]) -> list[str]:
    """The runs whose lease ran out. `crash` gets a flow run's id and a message; where it raises, the lease stays."""
    swept = []
    with connect() as connection, connection.transaction():
        rows = connection.execute(
            "SELECT run_id, model, stage, flow_run_id FROM stage_lease WHERE expires < clock_timestamp() FOR UPDATE SKIP LOCKED"
        ).fetchall()
        for run_id, model, stage, flow_run_id in rows:
            if flow_run_id:
                crash(
                    flow_run_id, f"{model}: nobody works on the stage {stage} of run {run_id} any more; start it again"
                )
            connection.execute("DELETE FROM stage_lease WHERE run_id = %s", [run_id])
            swept.append(str(run_id))
    return swept


def crash_flow_run(prefect_api: str, flow_run_id: str, message: str) -> None:
    """Crashed, where Prefect still says Running or Pending; a run that ended or is gone is left. Raises httpx.HTTPError."""
    with httpx.Client(base_url=prefect_api, timeout=5) as client:
        found = client.get(f"/flow_runs/{flow_run_id}")
        if found.status_code == 404:
            return
        found.raise_for_status()
        if (found.json().get("state") or {}).get("type") not in ("RUNNING", "PENDING", "CANCELLING"):
            return
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        client.post(f"/flow_runs/{flow_run_id}/set_state", json={"state": state, "force": True}).raise_for_status()
