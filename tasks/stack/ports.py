"""Free loopback ports, remembered, so that addresses survive a restart."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from tasks.whole_file import write_whole


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remembered(state: Path) -> dict[str, int]:
    file = state / "ports.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def assign(state: Path, names: Sequence[str], *, in_use: Sequence[str] = ()) -> dict[str, int]:
    """A port for each name: the remembered one while it is free (or `in_use` by our own part), else a new one."""
    known = remembered(state)
    ports = {name: known[name] for name in names if name in known and (name in in_use or is_free(known[name]))}
    for name in names:
        while name not in ports:
            port = _any_free()
            if port not in ports.values():
                ports[name] = port
    if {**known, **ports} != known:
        write_whole(state / "ports.json", json.dumps({**known, **ports}, indent=2) + "\n")
    return ports
