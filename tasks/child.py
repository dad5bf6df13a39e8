"""A child process that reports one JSON object a line: started in its own group, watched, and killed with its children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class ChildFailed(Exception):
    """The process ended badly; the message holds its last words."""


def run_child(
    argv: Sequence[str],
    *,
    what: str,
    on_event: Callable[[Event], None],
    env: Mapping[str, str],
    timeout: float,
    cwd: Path,
) -> None:
    """Run `argv` to its end. `timeout` in seconds.

    Raises ChildFailed on a non-zero exit that reported no {"event": "refused"}, and on timeout. A refusal is the caller's
    to read from the events.
    """
    refused = False
    expired = threading.Event()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            list(argv),
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",  # a library's chatter may be anything
            cwd=cwd,
            env={**os.environ, **env},
            start_new_session=True,
        ) as child,
    ):

        def expire() -> None:
            expired.set()
            _kill(child)

        timer = threading.Timer(timeout, expire)
        timer.start()
        try:
            for line in child.stdout or ():
                event = _event(line)
                if event:
                    refused = refused or event.get("event") == "refused"
                    on_event(event)
            code = child.wait()
        finally:
            timer.cancel()
            _kill(child)
        if expired.is_set():
            raise ChildFailed(
                f"{what} took more than {timeout:.0f} s and was stopped; raise its timeout in the spec or make it smaller"
            )
        if code != 0 and not refused:
            errors.seek(0)
            raise ChildFailed(f"{what} ended with exit code {code}: {_last_words(errors.read())}")


def _event(line: str) -> Event | None:
    """Anything that is not one of our objects is chatter of a library."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _kill(child: subprocess.Popen[str]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_words(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-600:] or "it said nothing"
