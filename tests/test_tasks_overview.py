"""What `liftlock status` says of models: from a gateway's split, a real ledger's lines and the runs' records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from serving.rollout.kept import Rollouts
from serving.rollout.machine import State
from tasks.overview import Served, UnderWay, is_alive, overview, served, under_way
from tasks.promotion.ledger import Line
from tasks.settings import Settings

AT = "2026-11-28T14:07:31.000000+00:00"
EVIDENCE = {"modelcar": "sha256:abc", "decision_sha256": "def"}


def line(number: int, kind: str, alias: str = "champion", version: str | None = "2", **more: Any) -> Line:
    fields: dict[str, Any] = {"actor": "ada", "reason": "", "evidence": EVIDENCE, **more}
    return Line(number, AT, "router", alias, kind, None, version, previous="", **fields)  # type: ignore[arg-type]


def run(run_id: str, verdict: str | None, version: str | None = "2", **more: Any) -> Mapping[str, Any]:
    stages = [{"name": "train", "note": "121 steps"}, {"name": "judge", "note": f"passed in {run_id}"}]
    return {
        "run_id": run_id, "name": "router", "verdict": verdict, "stages": stages, "began": 1764338851.0, "pid": 1,
        "model": {"version": version}, "report": f"/runs/{run_id}/report.html", **more,
    }  # fmt: skip


def test_what_is_served_is_told_with_the_line_that_made_it_champion_and_the_run_that_made_the_version() -> None:
    written = [
        line(1, "move", version="1"),
        line(2, "move"),
        line(3, "refused", version="3"),
        line(4, "move", "candidate", "3"),
    ]
    runs = [run("a", "champion", "1"), run("b", "champion"), run("c", "rejected", "3"), run("d", None)]
    assert served({"router": "router-2"}, written, runs) == [
        Served("router", "router-2", "2", AT, "ada", "passed in b", EVIDENCE, "/runs/b/report.html")
    ]


def test_a_model_without_a_line_or_a_run_is_told_as_far_as_it_is_known() -> None:
    assert served({"router": "router-2"}, [], [run("b", "champion")]) == [Served("router", "router-2")]
    assert served({"router": "router-2"}, [line(1, "move"), line(2, "removed", version=None)], []) == [
        Served("router", "router-2")
    ]
    (imported,) = served({"router": "router-2"}, [line(1, "move")], [])
    assert (imported.version, imported.judged, imported.report) == ("2", "", "")


def test_a_run_goes_on_or_was_stopped_and_a_finished_or_repeated_one_is_not_told() -> None:
    dead, alive = run("a", None), run("b", None, stages=[])
    assert [one.what for one in under_way([dead, alive], lambda one: one is alive, [], [])] == [
        "release b at its first stage"
    ]
    assert under_way([run("a", "failed"), dead], lambda _: False, [], []) == [
        UnderWay("router", "release a after judge, stopped: run the same command again", "2025-11-28T14:07:31+00:00")
    ]
    assert under_way([dead, run("b", "champion")], lambda _: False, [], []) == []


def test_a_canary_and_a_move_that_waits_are_under_way_until_they_are_over() -> None:
    canary = State("router", "router-3", "router-2", (10, 100), 60, phase="watching", weight=10)
    asked = line(1, "approval_requested", evidence={"needed": "2", "run": "a", "expires": AT})
    told = under_way([], is_alive, [canary], [asked, line(2, "approved", actor="bob")])
    assert [one.what for one in told] == [
        "canary router-3 watching at 10 %",
        "version 2 to champion waits for people: 1 of 2 approved",
    ]
    over = State("router", "router-3", "router-2", (10, 100), 60, phase="completed")
    assert under_way([], is_alive, [over], [asked, line(2, "denied", actor="bob")]) == []


def test_a_process_that_took_the_number_of_a_dead_one_is_not_the_run() -> None:
    began = psutil.Process().create_time()
    assert is_alive(run("a", None, pid=os.getpid(), began=began + 1))
    assert not is_alive(run("a", None, pid=os.getpid(), began=began - 60))
    assert not is_alive(run("a", None, pid=2**22 + 1))


def test_without_the_ledger_the_folders_still_tell(tmp_path: Path) -> None:
    """Nothing listens at that Postgres."""
    settings = Settings(state=tmp_path, postgres_dsn="postgresql://nobody@127.0.0.1:1")
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "splits.json").write_text(json.dumps([{"model": "router", "stable": "router-2"}]))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text(json.dumps(run("a", None, pid=os.getpid(), began=time.time())))
    Rollouts(tmp_path / "rollouts" / "router").begin(State("router", "router-3", "router-2", (10, 100), 60))
    seen = overview(settings)
    assert not seen.ledger and seen.served == [Served("router", "router-2")]
    assert [one.what for one in seen.under_way] == ["release a after judge", "canary router-3 warming at 0 %"]
