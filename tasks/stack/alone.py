"""Starts a part of the stack after ending what a killed one left behind: `python -P tasks/stack/alone.py COMMAND…`.

A server that is killed with -9 leaves its own children running; they keep the port, and the restarted server cannot
bind it. supervisord marks every process that it starts, children inherit the mark, and the mark tells them apart from
any other process of the user.
"""

from __future__ import annotations

import os
import sys

import psutil

SERVER, PART = "SUPERVISOR_SERVER_URL", "SUPERVISOR_PROCESS_NAME"  # what supervisord sets
PATIENCE_SECONDS = 5.0


def marked(server: str, part: str | None = None) -> list[psutil.Process]:
    """Processes that this supervisord started, and all that they started; of one part, or of every part."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:  # ended meanwhile, or another user's
            continue
        if environment.get(SERVER) == server and part in (None, environment.get(PART)) and process.pid != os.getpid():
            found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    """Ask them to end, wait, and kill those that did not. A process that is gone is fine."""
    for process in processes:
        _send(process, "terminate")
    _, stubborn = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    for process in stubborn:
        _send(process, "kill")
    psutil.wait_procs(stubborn, timeout=PATIENCE_SECONDS)


def _send(process: psutil.Process, signal: str) -> None:
    try:
        getattr(process, signal)()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    end(marked(os.environ[SERVER], os.environ[PART]))
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted: the part takes this process's place
