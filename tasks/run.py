"""One run of a release: its folder, its record on disk, and the lines it prints. The record is what `--json` and `--resume` read."""

from __future__ import annotations

import contextvars
import getpass
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tasks.artifacts import StageRecord
from tasks.whole_file import write_whole

MARKS = {"done": "✓", "rejected": "✗", "inconclusive": "?", "undone": "↩", "failed": "✗"}


@dataclass
class Run:
    """`stages` grows as the release goes on; `record()` replaces run.json each time.

    `actor` asked for it and `reason` is what they said, "" for nothing: the ledger gets both with each move.
    """

    run_id: str
    folder: Path
    spec_file: Path
    name: str
    console: Console
    began: float = field(default_factory=time.time)
    stages: list[StageRecord] = field(default_factory=list)
    fresh: bool = False
    lease: Callable[[str], None] = lambda _: None
    actor: str = field(default_factory=getpass.getuser)
    reason: str = ""

    def add(self, stage: StageRecord) -> None:
        self.stages = [one for one in self.stages if one.name != stage.name] + [stage]
        self.record(verdict=None)
        how = "from the cache" if stage.cached else f"{stage.seconds:.1f} s"
        self.console.print(
            f"{MARKS[stage.status]} {stage.name:<15} {how:>14}  {stage.note}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def begin(self, name: str) -> None:
        """Raises LeaseLost where another one may have taken the run on."""
        self.lease(name)
        if not self.console.is_terminal:
            return
        self.console.print(f"… {name}", end="\r", highlight=False, markup=False)

    def record(self, verdict: str | None, **more: Any) -> None:
        """`verdict` None says that the run is not finished."""
        document = {
            "run_id": self.run_id, "name": self.name, "spec": str(self.spec_file), "began": self.began, "pid": os.getpid(),
            "verdict": verdict, "stages": [asdict(stage) for stage in self.stages], **more,
        }  # fmt: skip
        write_whole(self.folder / "run.json", json.dumps(document, indent=2, default=str) + "\n")


_current: contextvars.ContextVar[Run] = contextvars.ContextVar("liftlock_run")


def current_run() -> Run:
    return _current.get()


def start_run(state: Path, spec_file: Path, name: str, *, resume: bool, fresh: bool, quiet: bool = False) -> Run:
    """A new run folder, or with `resume` the last unfinished one of this model."""
    found = unfinished(state, name) if resume else None
    run_id = found or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = state / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(file=sys.stderr, quiet=quiet)
    run = Run(run_id, folder, spec_file, name, console, fresh=fresh)
    run.record(verdict=None)
    _current.set(run)
    return run


def unfinished(state: Path, name: str) -> str | None:
    """The newest run of this model that has no verdict."""
    for file in sorted((state / "runs").glob("*/run.json"), reverse=True):
        document = json.loads(file.read_text())
        if document["name"] == name and document["verdict"] is None:
            return file.parent.name
    return None


def documents_of(state: Path, name: str) -> list[dict[str, Any]]:
    """run.json of every finished run of this model, oldest first."""
    found = (json.loads(file.read_text()) for file in sorted((state / "runs").glob("*/run.json")))
    return [document for document in found if document["name"] == name and document["verdict"] is not None]


def read_document(state: Path, spec_file: Path, pid: int) -> dict[str, Any] | None:
    """run.json of the newest run of that spec that this process wrote."""
    for file in sorted((state / "runs").glob("*/run.json"), key=lambda one: one.stat().st_mtime, reverse=True):
        document: dict[str, Any] = json.loads(file.read_text())
        if document["pid"] == pid and document["spec"] == str(spec_file):
            return document
    return None
