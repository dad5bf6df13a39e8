"""The table of defaults, defaults.yaml: what holds where nobody wrote a value."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from serving.coherence.bounded_yaml import read_file
from serving.coherence.model import Patch, Setting

TABLE = Path(__file__).with_name("defaults.yaml")


@lru_cache(maxsize=1)
def rows() -> dict[str, dict[str, Any]]:
    return dict(read_file(TABLE, TABLE.name)[0]["rows"])


def implicit(row: str, patch: Patch | None = None, file: str = "", line: int = 1) -> Setting:
    """The row as a setting that nobody wrote; `file` and `line` are where it would be written."""
    entry = rows()[row]
    value = entry.get("seconds", entry.get("count"))
    return Setting(value, f"{entry['program']}: {entry['what']}", True, file, line, patch)
