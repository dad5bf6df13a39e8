"""Where the shell layer of a modelcar comes from: the pinned busybox in the toolchain folder or on the system, or Debian's mirror."""

from __future__ import annotations

from pathlib import Path

from serving.modelcar.shell import ShellMissing, fetch_shell, shell_layer
from tasks.settings import Settings
from tasks.spec import Release

SYSTEM = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


def toolchain_shell(settings: Settings) -> Path:
    return settings.toolchain / "busybox" / "busybox"


def present_shell(settings: Settings) -> Path | None:
    """The first file that has the pinned bytes."""
    for place in (toolchain_shell(settings), *SYSTEM):
        try:
            shell_layer(place)
        except ShellMissing:
            continue
        return place
    return None


def shell_of(spec: Release, settings: Settings) -> Path | None:
    """None where the spec wants no shell, which is a function of the spec alone, so that the digest is one too.

    Left out, the shell is in for every delivery target but `local`. It is fetched where it is wanted and absent.
    Raises ShellMissing.
    """
    target: str = spec.delivery.target
    wanted = target != "local" if spec.modelcar.shell is None else spec.modelcar.shell
    if not wanted:
        return None
    if (found := present_shell(settings)) is None:
        found = toolchain_shell(settings)
        fetch_shell(found)
    return found
