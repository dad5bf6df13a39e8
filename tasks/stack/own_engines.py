"""Engines beside the first one, each of one model: what strategy pool gives a candidate. Kept in the state folder, so that
`liftlock up` brings them back.

A model has two places, so that a candidate's engine can stand beside its stable one; each place keeps its port.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.stack.engine import Engine
from tasks.whole_file import write_whole

PLACES = (1, 2)


@dataclass(frozen=True)
class OwnEngine:
    """`model` is the public name that it serves a version of; `place` is one of PLACES."""

    model: str
    place: int
    engine: Engine

    @property
    def part(self) -> str:
        """Its name among the parts of the stack."""
        return part_of(self.model, self.place)


def part_of(model: str, place: int) -> str:
    return f"vllm-{model}-{place}"


def read_own(state: Path) -> tuple[OwnEngine, ...]:
    file = _file(state)
    rows = json.loads(file.read_text()) if file.exists() else []
    return tuple(OwnEngine(row["model"], row["place"], Engine(**row["engine"])) for row in rows)


def write_own(state: Path, engines: Sequence[OwnEngine]) -> None:
    rows = [asdict(one) for one in sorted(engines, key=lambda one: one.part)]
    write_whole(_file(state), json.dumps(rows, indent=2) + "\n")


def _file(state: Path) -> Path:
    return state / "own-engines.json"
