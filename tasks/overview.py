"""What is served, since when and on what evidence, and what is under way: the second half of `liftlock status`.

It is read from the gateway's split, the ledger and the folders of runs and rollouts, so it answers while MLflow or Prefect is down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
import psycopg

from serving.gateway.state import Gateway
from serving.rollout.kept import Rollouts
from serving.rollout.machine import State as RolloutState
from tasks.promotion.approval import requests
from tasks.promotion.database import DATABASE, connect
from tasks.promotion.ledger import MOVES, Line, lines
from tasks.settings import Settings
from tasks.stack.addresses import postgres_address

Document = Mapping[str, Any]  # of run.json


@dataclass(frozen=True)
class Served:
    """`engine_model` is the engine's name of what has all of the traffic. The rest is of the champion's last line in the
    ledger, None or empty where the model was never promoted or the ledger is not reached. `since` is UTC in ISO 8601.
    """

    model: str
    engine_model: str
    version: str | None = None
    since: str | None = None
    by: str = ""
    judged: str = ""
    evidence: Mapping[str, str] | None = None
    report: str = ""


@dataclass(frozen=True)
class UnderWay:
    """`what` is a clause; `since` is UTC in ISO 8601, "" where it is not known."""

    model: str
    what: str
    since: str = ""


@dataclass(frozen=True)
class Overview:
    served: Sequence[Served]
    under_way: Sequence[UnderWay]
    ledger: bool
    """Whether the ledger was reached: without it approvals and evidence are not known."""


def overview(settings: Settings) -> Overview:
    """Raises StackDown."""
    runs = [json.loads(file.read_text()) for file in sorted((settings.state / "runs").glob("*/run.json"))]
    splits = {name: one.stable for name, one in Gateway(settings.state / "gateway", "", "", "").splits().items()}
    try:
        with connect(f"{postgres_address(settings)}/{DATABASE}") as connection:
            written, reached = lines(connection), True
    except psycopg.OperationalError:
        written, reached = [], False
    rollouts = [state for folder in (settings.state / "rollouts").glob("*") for state in _last(Rollouts(folder))]
    return Overview(served(splits, written, runs), under_way(runs, is_alive, rollouts, written), reached)


def _last(rollouts: Rollouts) -> list[RolloutState]:
    return [one.state for one in rollouts.all()[-1:]]


def is_alive(run: Document) -> bool:
    """Whether the process that wrote the run's record is there; a later one with its number is another process."""
    try:
        return bool(psutil.Process(run["pid"]).create_time() <= run["began"])
    except psutil.NoSuchProcess:
        return False


def served(splits: Mapping[str, str], written: Iterable[Line], runs: Sequence[Document]) -> list[Served]:
    last = {line.model: line for line in written if line.alias == "champion" and line.kind in MOVES}
    return [_served(model, engine, last.get(model), runs) for model, engine in sorted(splits.items())]


def _served(model: str, engine_model: str, line: Line | None, runs: Sequence[Document]) -> Served:
    if line is None or line.to_version is None:
        return Served(model, engine_model)
    run: Document = next((one for one in reversed(runs) if _made(one, model, line.to_version)), {"stages": ()})
    judged = next((stage["note"] for stage in run["stages"] if stage["name"] == "judge"), "")
    return Served(
        model, engine_model, line.to_version, line.at, line.actor, judged, dict(line.evidence), run.get("report", "")
    )


def _made(run: Document, model: str, version: str) -> bool:
    return run["name"] == model and bool(run["verdict"]) and (run.get("model") or {}).get("version") == version


def under_way(
    runs: Sequence[Document],
    alive: Callable[[Document], bool],
    rollouts: Iterable[RolloutState],
    written: Iterable[Line],
) -> list[UnderWay]:
    """Releases that run, or were stopped and not run again; canaries; moves that wait for people."""
    newest = {run["name"]: run for run in runs}
    releases = [
        UnderWay(run["name"], _going(run, alive(run)), _utc(run["began"]))
        for run in runs
        if run["verdict"] is None and (alive(run) or run is newest[run["name"]])
    ]
    canaries = [
        UnderWay(one.model, f"canary {one.candidate} {one.phase} at {one.weight} %") for one in rollouts if not one.over
    ]
    asked = [one for one in requests(written) if one.denied is None and not one.granted]
    waiting = [
        UnderWay(
            one.line.model,
            f"version {one.line.to_version} to {one.line.alias} waits for people: {len(one.by)} of {one.needed} approved",
            one.line.at,
        )
        for one in asked
    ]
    return [*releases, *canaries, *waiting]


def _going(run: Document, alive: bool) -> str:
    done = [stage["name"] for stage in run["stages"]]
    where = f"after {done[-1]}" if done else "at its first stage"
    return f"release {run['run_id']} {where}" + ("" if alive else ", stopped: run the same command again")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
