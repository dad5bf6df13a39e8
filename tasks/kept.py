"""What evaluations keep in the state folder, and what is removed of it: reports and answers that nothing asked for lately. Effect.

Their names are digests of all that they depend on, so one that is not asked for any more belongs to a model, prompt or engine
that is not in use. Whoever uses a file marks it with `used`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

FOLDERS = ("answers", "reports")
MOST_SECONDS = 30 * 86400
MOST_BYTES = 1 << 30
YOUNG_SECONDS = 86400  # an evaluation under way may be using it


def used(file: Path) -> bool:
    """Whether it is there; its time says so from now on."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    return True


def collect(state: Path, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Remove what was not used for 30 days, and of the rest the least recently used until `most_bytes` are left; what was used
    within a day stays. Returns what was removed.
    """
    now, found = time.time(), []
    for file in (file for folder in FOLDERS for file in (state / folder).glob("*")):
        try:
            stat = file.stat()
        except FileNotFoundError:  # another evaluation removed it
            continue
        found.append((stat.st_mtime, stat.st_size, file))
    left, removed = sum(size for _, size, _ in found), []
    for at, size, file in sorted(found):
        if now - at > MOST_SECONDS or (left > most_bytes and now - at > YOUNG_SECONDS):
            file.unlink(missing_ok=True)
            left -= size
            removed.append(file)
    return removed
