"""Strategy swap on this machine: the first engine is replaced by the one that the release needs, and comes back on an undo."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.gateway.state import Gateway
from serving.rollout.local import LocalTarget
from serving.rollout.swap import SwapTarget, gap_told
from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of, locked, up
from tasks.stack.engine import Engine, EngineBusy, write_engine
from tasks.stack.own_control import await_process
from tasks.stack.supervisor import Supervisor
from tasks.whole_file import write_whole

STAMP = re.compile(r"(?:INFO|WARNING) (\d\d-\d\d \d\d:\d\d:\d\d) ")
READY = "Starting vLLM server"
UNKNOWN_GAP_SECONDS = 60


def swap_target(
    settings: Settings, model: str, gateway: Gateway, new: Engine, drain_seconds: float, check: Callable[[], None]
) -> SwapTarget:
    """`check` is asked once the candidate's engine answers. A killed swap's engine of before is still known. Raises EngineBusy."""
    file, kept = _file(settings), _kept(settings)
    old = Engine(**kept["old"]) if kept else default_engine(settings)
    others = [one.model for one in gateway.splits().values() if one.candidate and one.model != model]
    if others or (kept and kept["model"] != model):
        name = others[0] if others else kept["model"]
        raise EngineBusy(
            f"{name} has a rollout on this engine, which a swap would cut off; required: none. Wait for it, or run "
            f"`liftlock rollout abort {name}`"
        )
    models = [one.model for one in gateway.splits().values() if one.stable_engine is None]
    if old.model != new.model and len(models) > 1:
        raise EngineBusy(
            f"the engine serves {', '.join(models)} with the base {old.served_name}, and the release needs {new.served_name}; "
            "required: no other model on it. Use strategy pool, or another state folder (LIFTLOCK_STATE)"
        )

    def put(candidate: bool) -> None:
        write_whole(file, json.dumps({"model": model, "old": asdict(old)}) + "\n")
        replace_engine(settings, new if candidate else old)
        if candidate:
            check()

    def replaced() -> bool:
        return default_engine(settings) != old

    gap = start_seconds(settings) or UNKNOWN_GAP_SECONDS
    return SwapTarget(
        gateway, settings.adapters, replace=put, replaced=replaced, models=models, gap_seconds=gap, drain_limit=drain_seconds
    )  # fmt: skip


def replace_engine(settings: Settings, engine: Engine) -> None:
    """Whoever it serves is cut off: the caller has drained it. Returns when the new one answers. Raises PartNotReady."""
    with locked(settings):
        Supervisor(settings.state).stop("vllm")  # first: `up` lets one that has clients go on, whatever is written
        write_engine(settings.state, engine)
    up(settings, lambda _: None, wait_for_engine=False)
    await_process(settings, "vllm")


def ended(settings: Settings, model: str) -> None:
    """There is nothing to come back to any more."""
    if unfinished(settings, model):
        _file(settings).unlink()


def unfinished(settings: Settings, model: str) -> bool:
    return _kept(settings).get("model") == model


def undo_target(settings: Settings, model: str) -> LocalTarget:
    """What gives the model's stable version everything back, whatever the strategy of its rollout was."""
    gateway = gateway_of(settings, addresses(settings), default_engine(settings))
    if unfinished(settings, model):
        return swap_target(settings, model, gateway, default_engine(settings), 0.0, lambda: None)
    split = gateway.splits().get(model)
    return LocalTarget(gateway, settings.adapters, split.candidate_engine if split else None)


def told(settings: Settings, gateway: Gateway, drain_seconds: float) -> str:
    """The gap, for people, before it begins."""
    elsewhere = [one.model for one in gateway.fallback if one.url != gateway.engine_url]
    return gap_told(start_seconds(settings), drain_seconds, elsewhere[0] if elsewhere else None)


def start_seconds(settings: Settings) -> float | None:
    """From the first line of the engine's last start to its server; None where its log does not say."""
    file = settings.state / "logs" / "vllm.log"
    return log_seconds(file.read_text(errors="replace")) if file.is_file() else None


def log_seconds(log: str) -> float | None:
    began, last = None, None
    for line in log.splitlines():
        if found := STAMP.search(line):
            at = datetime.strptime(f"2000-{found[1]}", "%Y-%m-%d %H:%M:%S")
            if "version" in line and "█" in line:
                began = at
            elif READY in line and began:
                last = (at - began).total_seconds()
    return last


def _kept(settings: Settings) -> dict[str, Any]:
    """The model whose swap is under way and its engine of before; empty where none is."""
    file = _file(settings)
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _file(settings: Settings) -> Path:
    return settings.state / "swap.json"
