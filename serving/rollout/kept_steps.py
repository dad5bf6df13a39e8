"""What was seen, on disk beside the rollout's state: steps.jsonl has the decided steps, look.json the last look at the one that is watched."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from serving.rollout.kept import Kept
from serving.rollout.model import Step

SHOW_SECONDS = 0.5


def keep_step(kept: Kept, step: Step) -> None:
    with (kept.folder / "steps.jsonl").open("a") as out:
        out.write(json.dumps(asdict(step)) + "\n")


def kept_steps(kept: Kept) -> list[Step]:
    """What was decided so far; a line that a kill cut short is left out."""
    file = kept.folder / "steps.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [TypeAdapter(Step).validate_json(line) for line in lines if line.endswith("}")]


@dataclass
class Shown:
    """Writes looks for people at most every SHOW_SECONDS; nothing rests on them, so they need not survive a crash."""

    folder: Path
    last: float = 0.0

    def show(self, step: Step) -> None:
        if time.monotonic() - self.last < SHOW_SECONDS:
            return
        self.last = time.monotonic()
        temporary = self.folder / ".look.json"
        temporary.write_text(json.dumps(asdict(step)))
        temporary.replace(self.folder / "look.json")


def last_look(folder: Path) -> Step | None:
    file = folder / "look.json"
    return TypeAdapter(Step).validate_json(file.read_text()) if file.exists() else None
