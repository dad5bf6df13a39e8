"""The number of a state folder's layout: an older one is brought up to date with a backup, a newer one is refused in words.

Layouts: 1 was open to other users (0711). 2 is closed to them; a program of layout 1 would look for root's Postgres elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tasks.stack.state_folder import close_to_others
from tasks.whole_file import write_whole

STATE_VERSION = 2  # raise it with a change of layout that an older program would misread, and migrate below
BACKED_UP_BYTES = 1 << 20  # larger files are logs, models and the databases' own, which no migration rewrites
MIGRATIONS: Mapping[int, Callable[[Path], None]] = {1: close_to_others}  # from this layout to the next


class StateTooNew(Exception):
    """A newer Liftlock made this state folder, or its number cannot be read."""


def prepare_state(state: Path, say: Callable[[str], None]) -> None:
    """Raises StateTooNew, StateShared, before anything is touched."""
    if kept := ensure_version(state):
        say(f"the state folder has layout {STATE_VERSION} now; a backup of what describes the stack is in {kept}")
    close_to_others(state)


def ensure_version(state: Path) -> Path | None:
    """Migrates an older layout after a backup, whose folder is returned; writes the number where there is none. A folder with
    ports and no number is from before numbers, whose layout is the first. A kill in between: the next call does it again.

    Raises StateTooNew, before anything is touched.
    """
    file = state / "version"
    before = "1" if (state / "ports.json").exists() else str(STATE_VERSION)
    found = file.read_text(errors="replace").strip() if file.exists() else before
    if not (found.isascii() and found.isdecimal() and 1 <= int(found) <= STATE_VERSION):
        raise StateTooNew(
            f"the state folder {state} has layout {found[:20]!r}, this Liftlock knows 1 to {STATE_VERSION}; use the newer "
            "checkout that made it, or set LIFTLOCK_STATE to another folder. Nothing was changed"
        )
    kept = back_up(state, int(found)) if int(found) < STATE_VERSION else None
    for number in range(int(found), STATE_VERSION):
        MIGRATIONS[number](state)
    if kept or not file.exists():
        write_whole(file, f"{STATE_VERSION}\n")
    return kept


def back_up(state: Path, layout: int) -> Path:
    """The files that describe the stack, with its secrets and keys, into backups/layout-N-TIME/; that folder appears whole."""
    home = state / "backups"
    home.mkdir(mode=0o700, exist_ok=True)
    made = home / f"layout-{layout}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    partial = home / f".{made.name}"
    shutil.rmtree(partial, ignore_errors=True)
    for file in [*state.glob("*"), *(state / "gateway").glob("*"), *(state / "keys").glob("*")]:
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= BACKED_UP_BYTES:
            copy = partial / file.relative_to(state)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
    shutil.rmtree(made, ignore_errors=True)
    return partial.rename(made)
