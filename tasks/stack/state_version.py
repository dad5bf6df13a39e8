"""The number of a state folder's layout, so that an older program never works on the files of a newer one."""

from __future__ import annotations

from pathlib import Path

from tasks.whole_file import write_whole

STATE_VERSION = 1  # raise it with a change of layout that an older program would misread, and migrate here


class StateTooNew(Exception):
    """A newer Liftlock made this state folder, or its number cannot be read."""


def ensure_version(state: Path) -> None:
    """Writes the number where there is none: a new folder, or one from before numbers, whose layout is the first.

    Raises StateTooNew, before anything is touched.
    """
    file = state / "version"
    found = file.read_text(errors="replace").strip() if file.exists() else str(STATE_VERSION)
    if not (found.isascii() and found.isdecimal() and 1 <= int(found) <= STATE_VERSION):
        raise StateTooNew(
            f"the state folder {state} has layout {found[:20]!r}, this Liftlock knows 1 to {STATE_VERSION}; use the newer "
            "checkout that made it, or set LIFTLOCK_STATE to another folder. Nothing was changed"
        )
    if not file.exists():
        write_whole(file, f"{STATE_VERSION}\n")
