"""The part `watch` as the local stack starts it, between a real Postgres, MLflow and Prefect."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.promotion.database import connect
from tasks.promotion.move import Promoter, Wanted
from tasks.promotion.registry import MlflowRegistry
from tasks.stack.addresses import addresses
from tasks.stack.kept_secrets import webhook_secret
from tasks.stack.parts import watch_part
from tasks.stack.webhooks import ensure_webhook
from tests.fix_http import await_http
from tests.fix_prefect import PrefectServer
from tests.fix_promotion import claimed
from tests.fix_surroundings import Surroundings

LEASE = "INSERT INTO stage_lease VALUES ('run-1', gen_random_uuid(), 'tickets', 'train', NULL, clock_timestamp())"


@dataclass(frozen=True)
class Watch:
    url: str
    dsn: str
    state: Path
    prefect: PrefectServer


@pytest.fixture
def watch(surroundings: Surroundings) -> Iterator[Watch]:
    settings, where = surroundings.settings, addresses(surroundings.settings)
    part = watch_part(settings, where)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFTLOCK_")}
    with (settings.state / "log").open("wb") as log:
        process = subprocess.Popen(
            part.command, cwd=part.folder, env={**environment, **part.environment}, stdout=log, stderr=log
        )
    try:
        await_http(str(part.health), process, settings.state / "log", 60)
        yield Watch(where.watch, where.dsn("liftlock"), settings.state, surroundings.prefect)
    finally:
        process.terminate()
        process.wait()


def _wait(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_alias_set_by_hand_becomes_an_event_in_prefect_and_a_dead_lease_is_swept(
    watch: Watch, mlflow_server: str, mlflow_client: MlflowClient, registered: str
) -> None:
    mover = Promoter(partial(connect, watch.dsn), MlflowRegistry(mlflow_server), claimed, lambda _: None)
    mover.move(Wanted(registered, "staging", "1", None, "ada", "a release", {}))
    with connect(watch.dsn) as connection:
        connection.execute(LEASE)
    ensure_webhook(mlflow_server, f"{watch.url}/webhook", webhook_secret(watch.state))
    time.sleep(1.1)  # MLflow knows its webhooks for a second
    mlflow_client.set_registered_model_alias(registered, "staging", "3")
    wanted = {"filter": {"event": {"name": ["liftlock.alias.set-by-hand"]}}}

    def told() -> bool:
        found = watch.prefect.post("/events/filter", wanted)["events"]
        return {"model": registered, "alias": "staging", "version": "3"} in [one["payload"] for one in found]

    _wait(told, 30)
    assert "passed on to be settled" in (watch.state / "log").read_text()
    with connect(watch.dsn) as connection:
        _wait(lambda: connection.execute("SELECT count(*) FROM stage_lease").fetchone() == (0,), 20)
    assert (watch.state / "webhook.secret").stat().st_mode & 0o077 == 0
    for one in mlflow_client.list_webhooks():
        mlflow_client.delete_webhook(one.webhook_id)
