"""prefect.yaml in a real Prefect: every deployment, for both pools, and notifications that reach an address."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from tasks.promotion.events import PrefectEvents, event, event_of, now
from tasks.promotion.ledger import Line
from tasks.settings import ROOT
from tasks.stack.deployments import Pool, deploy_all, ensure_work_pool, for_pool
from tasks.stack.notifications import ensure_notifications
from tests.fix_prefect import PrefectServer

FILE = (ROOT / "prefect.yaml").read_text()


def wanted(text: str) -> list[tuple[str, str, str]]:
    found = YAML(typ="safe").load(text)["deployments"]
    return sorted((one["entrypoint"], one["name"], one["work_pool"]["name"]) for one in found)


def test_for_the_cluster_it_is_the_same_file_with_another_pool() -> None:
    here, there = wanted(FILE), wanted(for_pool(FILE, "kubernetes"))
    assert [one[0] for one in here] == [one[0] for one in there]
    assert {one[2] for one in there} == {"kubernetes"}
    assert "local" not in {one[1] for one in there}


@pytest.mark.parametrize("pool", ["liftlock", "kubernetes"])
def test_all_deployments_are_registered_to_run_in_this_checkout(prefect_server: PrefectServer, pool: Pool) -> None:
    for _ in range(2):  # what is there already is brought up to date
        ensure_work_pool(prefect_server.api, pool)
    deploy_all(prefect_server.api, prefect_server.home, pool)
    found = [one for one in prefect_server.post("/deployments/filter", {}) if one["work_pool_name"] == pool]
    assert sorted((one["entrypoint"], one["name"], pool) for one in found if one["name"] != "test") == wanted(
        for_pool(FILE, pool)
    )
    steps = [step for one in found for step in one["pull_steps"] or []]
    assert {json.dumps(step).count(str(ROOT)) for step in steps} == {1}
    release = next(one for one in found if one["entrypoint"] == "flows.release.release" and one["name"] != "drift")
    described = release["parameter_openapi_schema"]["properties"]["spec_file"]
    assert "release.yaml" in described["description"]
    assert release["global_concurrency_limit"]["limit"] == 1
    expected = {
        event for one in prefect_server.post("/automations/filter", {}) for event in one["trigger"].get("expect", [])
    }
    assert {"liftlock.dataset.changed", "liftlock.alias.requested", "liftlock.alias.set-by-hand", "liftlock.alias.moved",
            "liftlock.champion.drift"} <= expected  # fmt: skip


def test_a_releases_own_candidate_starts_nothing() -> None:
    """The chain begins with a move of the actor mlflow: a release goes on with its candidate by itself."""
    by_entry = {(one["entrypoint"], one["name"]): one for one in YAML(typ="safe").load(FILE)["deployments"]}
    (gate,) = by_entry[("flows.gate_candidate.gate_candidate", "candidate")]["triggers"]
    (promote,) = by_entry[("flows.promote.promote", "candidate")]["triggers"]
    hand, own = (
        event_of(Line(1, now(), "tickets", "candidate", "move", None, "2", actor, "", {}, "h"))
        for actor in ("mlflow", "root")
    )
    match = {key: value for key, value in gate["match"].items() if key != "prefect.resource.id"}
    assert gate["enabled"] and promote["enabled"]
    assert (gate["expect"], promote["expect"]) == ([hand["event"]], ["liftlock.candidate.passed"])
    assert match.items() <= hand["resource"].items()
    assert not match.items() <= own["resource"].items()


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    finally:
        server.shutdown()
        server.server_close()


def test_rejection_rollback_and_drift_reach_the_address(prefect_server: PrefectServer) -> None:
    send = PrefectEvents(prefect_server.api).send
    names = (
        "liftlock.release.rejected",
        "liftlock.alias.rolled-back",
        "liftlock.champion.drift",
        "liftlock.alias.moved",
    )
    with listening() as (url, got), temporary_settings({PREFECT_API_URL: prefect_server.api}):
        for address in ("http://127.0.0.1:9/", url):  # the second mends the first
            told = ensure_notifications(prefect_server.api, address)
        assert told == ["liftlock: rejected", "liftlock: rolled back", "liftlock: drift"]
        deadline = time.monotonic() + 30
        turn = 0
        while len({one["event"] for one in got}) < 3 and time.monotonic() < deadline:
            for name in names:  # again: Prefect loads new automations a moment later
                send(event(name, "tickets", {}, {"reason": 'said "no"'}, f"{name} {turn} {time.time()}", now()))
            turn += 1
            time.sleep(1.5)
    assert {one["event"] for one in got} == set(names[:3])
    assert got[0]["payload"]["reason"] == 'said "no"'
    automations = [one["name"] for one in prefect_server.post("/automations/filter", {})]
    assert automations.count("liftlock: drift") == 1
