"""The access log is turned over by size: access.log.1 is the newest old one. Envoy opens the new file when it is told to."""

from __future__ import annotations

from pathlib import Path

import httpx

MAX_BYTES = 64 << 20
KEPT = 4


def rotate(log: Path, admin_url: str, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> bool:
    """Whether it was turned over. No line is lost: until Envoy has opened the new file it writes on in the renamed one.

    Raises httpx.HTTPError where Envoy does not answer; the next call then tells it again.
    """
    due = log.exists() and log.stat().st_size >= max_bytes
    if due:
        old = _old(log, kept)
        old[-1].unlink(missing_ok=True)
        for newer, older in reversed(list(zip([log, *old], old, strict=False))):
            if newer.exists():
                newer.replace(older)
    if due or not log.exists():
        httpx.post(f"{admin_url}/reopen_logs", timeout=5).raise_for_status()
    return due


def logs(log: Path, kept: int = KEPT) -> list[Path]:
    """Those that exist, oldest first."""
    return [file for file in (*reversed(_old(log, kept)), log) if file.exists()]


def _old(log: Path, kept: int) -> list[Path]:
    return [log.with_name(f"{log.name}.{number}") for number in range(1, kept + 1)]
