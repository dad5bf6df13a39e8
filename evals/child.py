"""Runs an evaluation tool as a child process: its own process group, a time limit, progress lines. Effect.

The tools need settings in the environment (offline switches, telemetry off). They are given with the program `env`, so
that nothing here reads or copies this process's environment. A child runs once to its end, or stands by for requests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRESS = "LIFTLOCK_PROGRESS"  # a line of a child's stdout: this word and how many more items are done
DONE = "LIFTLOCK_DONE"  # a line of a standing child's stdout: the request is answered
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
    child = _spawn(argv, cwd, log, set_env, unset_env, stdin=subprocess.DEVNULL)
    try:
        with _limit(child, timeout_s) as expired:
            _follow(child, total, progress)
            returncode = child.wait()
    finally:
        _end(child)
    return Finished(returncode, _tail(log), expired.is_set())


class StandingChild:
    """A child that reads a request a line and says DONE after each, until it is closed. It starts at the first request."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, log: Path, set_env: Mapping[str, str], unset_env: Sequence[str] = ()
    ) -> None:
        self._start = partial(_spawn, argv, cwd, log, set_env, unset_env, subprocess.PIPE)
        self._child: subprocess.Popen[bytes] | None = None
        self._log = log

    def ask(self, request: Any, *, timeout_s: float, total: int, progress: Progress) -> Finished | None:
        """None when it answered; how it ended where it did not. Its group is killed at the limit or on an exception."""
        child = self._child = self._child or self._start()
        try:
            with _limit(child, timeout_s) as expired:
                answered = _send(child, request) and _follow(child, total, progress)
        except BaseException:
            self.close()
            raise
        if answered:
            return None
        returncode = child.wait()
        self.close()
        return Finished(returncode, _tail(self._log), expired.is_set())

    def close(self) -> None:
        if self._child is not None:
            _end(self._child)
            self._child = None

    def __enter__(self) -> StandingChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _spawn(
    argv: Sequence[str], cwd: Path, log: Path, set_env: Mapping[str, str], unset_env: Sequence[str], stdin: int
) -> subprocess.Popen[bytes]:
    changes = [*(part for name in unset_env for part in ("-u", name)), *(f"{k}={v}" for k, v in set_env.items())]
    with log.open("wb") as errors:
        return subprocess.Popen(
            ["env", *changes, *argv],
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


@contextmanager
def _limit(child: subprocess.Popen[bytes], timeout_s: float) -> Iterator[threading.Event]:
    """Kill the child's group when the time is over; the event says that it was."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(child)

    timer = threading.Timer(timeout_s, expire)
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _send(child: subprocess.Popen[bytes], request: Any) -> bool:
    """False where the child has ended."""
    if child.stdin is None:
        raise ValueError("the child has no stdin to write to")
    try:
        child.stdin.write(f"{json.dumps(request)}\n".encode())
        child.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def _follow(child: subprocess.Popen[bytes], total: int, progress: Progress) -> bool:
    """Tell progress until the child says DONE (True) or its output ends."""
    if child.stdout is None:
        raise ValueError("the child has no stdout to follow")
    done = 0
    for raw in child.stdout:
        word, _, count = raw.decode(errors="replace").strip().partition(" ")
        if word == DONE:
            return True
        if word == PROGRESS and count.isdigit():
            done = min(total, done + int(count))
            progress(done, total)
    return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-TAIL_LINES:])


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child's group; its members may have ended already."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def _end(child: subprocess.Popen[bytes]) -> None:
    _kill(child)
    for stream in (child.stdin, child.stdout):
        with suppress(BrokenPipeError):  # a request that a dead child did not read
            if stream is not None:
                stream.close()
