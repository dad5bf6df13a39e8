"""Which checkout a state folder's running stack belongs to.

The stack's programs, the worker's imports and the deployments' working directory are paths of one checkout. A second
checkout with the same state folder would restart them all with its own paths, under whoever uses the first.
"""

from __future__ import annotations

from pathlib import Path

from tasks.whole_file import write_whole


class StackTaken(Exception):
    """Another checkout runs the stack of this state folder."""


def claim(state: Path, checkout: Path, running: bool) -> None:
    """Writes down that the stack is this checkout's. Raises StackTaken while another's runs, and then writes nothing."""
    file = state / "checkout"
    owner = file.read_text().strip() if file.exists() else ""
    if running and owner not in ("", str(checkout)):
        raise StackTaken(
            f"the stack in {state} was started from the checkout {owner} and runs; from {checkout} it would be restarted "
            "with other programs. Work in that checkout, run `liftlock down` there first, or set LIFTLOCK_STATE to "
            "another folder"
        )
    write_whole(file, f"{checkout}\n")
