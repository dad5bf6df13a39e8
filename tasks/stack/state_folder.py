"""Who may enter the state folder: its owner alone, and for root the group of the user that runs Postgres."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from tasks.stack.parts import postgres_user


class StateShared(Exception):
    """The folder is one that other users work in, such as /tmp: it cannot be closed."""


def close_to_others(state: Path) -> None:
    """0700. As root 0710 with Postgres' group, which may pass through and list nothing: Postgres refuses to run as root, and its
    cluster lies in this folder. A folder that somebody else owns, such as a cluster's volume, stays as it is. Raises StateShared.
    """
    found = state.stat()
    if found.st_mode & stat.S_ISVTX:
        raise StateShared(
            f"the state folder {state} is shared (mode {stat.S_IMODE(found.st_mode):o}), required: one that its owner alone may "
            "enter; set LIFTLOCK_STATE to a folder of its own. Nothing was changed"
        )
    if os.geteuid() not in (0, found.st_uid):
        return
    user = postgres_user()
    group = found.st_gid if user is None else pwd.getpwnam(user).pw_gid
    mode = 0o700 if user is None else 0o710
    if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group, mode):
        os.chown(state, -1, group)
        state.chmod(mode)
