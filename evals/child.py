"""Runs an evaluation tool as a child process: its own process group, a time limit, progress lines. Effect.

The tools need settings in the environment (offline switches, telemetry off). They are given with the program `env`, so
that nothing here reads or copies this process's environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRESS = "LIFTLOCK_PROGRESS"  # a line of a child's stdout: this word and how many more items are done
TAIL_LINES = 12

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Finished:
    """How a child ended. `tail` is the end of its stderr; `timed_out` means that it was killed at the limit."""

    returncode: int
    tail: str
    timed_out: bool


def run_child(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    timeout_s: float,
    total: int,
    progress: Progress,
    set_env: Mapping[str, str],
    unset_env: Sequence[str] = (),
) -> Finished:
    """Run `argv` to its end, its stderr in the file `log`. Its group is killed at the limit or on an exception."""
    changes = [*(part for name in unset_env for part in ("-u", name)), *(f"{k}={v}" for k, v in set_env.items())]
    with log.open("wb") as errors:
        child = subprocess.Popen(
            ["env", *changes, *argv], cwd=cwd, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(child)

    timer = threading.Timer(timeout_s, expire)
    timer.start()
    try:
        _follow(child, total, progress)
        returncode = child.wait()
    finally:
        timer.cancel()
        _kill(child)
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-TAIL_LINES:]
    return Finished(returncode, "\n".join(tail), expired.is_set())


def _follow(child: subprocess.Popen[bytes], total: int, progress: Progress) -> None:
    if child.stdout is None:
        raise ValueError("the child has no stdout to follow")
    done = 0
    with child.stdout as lines:
        for raw in lines:
            word, _, count = raw.decode(errors="replace").strip().partition(" ")
            if word == PROGRESS and count.isdigit():
                done = min(total, done + int(count))
                progress(done, total)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child's group; its members may have ended already."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()
