"""Rollouts on disk: one folder a rollout with its state, the events that made it, and commands for it. Survives a kill at any moment.

rollouts/MODEL/lock                 held by the pipeline that drives it; the kernel frees it when that is killed
rollouts/MODEL/0003/state.json      the state, replaced whole before its action is performed
rollouts/MODEL/0003/events.jsonl    what happened, a line an event, for people
rollouts/MODEL/0003/command.json    pause, resume or abort, until the pipeline takes it
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from serving.rollout.machine import Aborted, Action, Event, Paused, Resumed, State, Ticked, advance

LOOK_SECONDS = 0.1
COMMANDS: dict[str, type[Paused] | type[Resumed]] = {"pause": Paused, "resume": Resumed}


class RolloutUnderWay(Exception):
    """Another pipeline drives a rollout of the same model."""


class NoRollout(Exception):
    """There is no rollout, or none that could still be told anything."""


def state_to_json(state: State) -> str:
    return json.dumps(asdict(state), indent=2) + "\n"


def state_from_json(text: str) -> State:
    fields: dict[str, Any] = json.loads(text)
    return State(**{**fields, "weights": tuple(fields["weights"])})


@dataclass
class Kept:
    """One rollout and its folder. `tell` is the only way its state changes."""

    folder: Path
    state: State

    def tell(self, event: Event) -> Action | None:
        """Advance and keep the new state; returns the action to perform. Raises OSError when it cannot be kept."""
        before = self.state
        after, action = advance(before, event)
        if after != before:
            replace_file(self.folder / "state.json", state_to_json(after))
            self.state = after
        if after.phase != before.phase or not isinstance(event, Ticked):
            self._note(before, event)
        return action

    def _note(self, before: State, event: Event) -> None:
        line = {
            "time": round(time.time(), 3), "event": type(event).__name__, **asdict(event),
            "from": before.phase, "to": self.state.phase, "weight": self.state.weight,
        }  # fmt: skip
        with (self.folder / "events.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """A last line that a kill cut short is left out."""
        file = self.folder / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def command(self) -> Event | None:
        """What a person asked for since the last look."""
        file = self.folder / "command.json"
        if not file.exists():
            return None
        asked = json.loads(file.read_text())
        file.unlink(missing_ok=True)
        return Aborted(asked["reason"]) if asked["command"] == "abort" else COMMANDS[asked["command"]]()

    def send(self, command: str, reason: str) -> None:
        """From another process. An abort that waits is not overwritten by a resume."""
        file = self.folder / "command.json"
        if command != "abort" and file.exists() and json.loads(file.read_text())["command"] == "abort":
            return
        replace_file(file, json.dumps({"command": command, "reason": reason}))


@dataclass(frozen=True)
class Rollouts:
    """Those of one model. `folder` is rollouts/MODEL."""

    folder: Path

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Held while a pipeline drives. Raises RolloutUnderWay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            try:
                _lock(file)
            except BlockingIOError:
                raise RolloutUnderWay(
                    f"another rollout of {self.folder.name} is under way; see `liftlock rollout status {self.folder.name}`, "
                    f"wait for it, or stop it with `liftlock rollout abort {self.folder.name}`"
                ) from None
            yield

    def driven(self) -> bool:
        """Whether a pipeline drives one now; a killed one does not."""
        if not (self.folder / "lock").exists():
            return False
        with (self.folder / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def begin(self, state: State) -> Kept:
        folder = self.folder / f"{len(self.all()) + 1:04}"
        folder.mkdir(parents=True)
        replace_file(folder / "state.json", state_to_json(state))
        return Kept(folder, state)

    def all(self) -> list[Kept]:
        """Oldest first; a folder without a state is one that was killed while it was made."""
        files = sorted(self.folder.glob("[0-9]*/state.json"))
        return [Kept(file.parent, state_from_json(file.read_text())) for file in files]

    def last(self) -> Kept:
        """Raises NoRollout."""
        found = self.all()
        if not found:
            raise NoRollout(f"{self.folder.name} has no rollout yet; `liftlock release SPEC` makes one")
        return found[-1]

    def unfinished(self) -> Kept | None:
        found = self.all()
        return found[-1] if found and not found[-1].state.over else None


def _lock(file: IO[str]) -> None:
    """Twice, because `driven` holds it for a moment. Raises BlockingIOError."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOOK_SECONDS)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace_file(path: Path, text: str) -> None:
    """The old file or the new one, on the disk before this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
