"""Starts and stops engines of their own beside the first one."""

from __future__ import annotations

from tasks.settings import Settings
from tasks.stack.addresses import local_address
from tasks.stack.control import await_part, locked, up
from tasks.stack.own_engines import OwnEngine, read_own, write_own
from tasks.stack.supervisor import Supervisor


def start_own(settings: Settings, own: OwnEngine) -> str:
    """The address of an engine of its own; it is not waited for. Raises what `up` raises."""
    with locked(settings):
        others = [one for one in read_own(settings.state) if one.part != own.part]
        write_own(settings.state, [*others, own])
    up(settings, lambda _: None, wait_for_engine=False)
    return local_address(settings, own.part)


def await_process(settings: Settings, part: str) -> None:
    """An engine, until it answers. Raises PartNotReady, at once where its process ended."""
    supervisor = Supervisor(settings.state)
    pids: set[int] = set()

    def dead() -> bool:
        found = supervisor.states()[part]
        pids.update({found.pid} - {0})
        return len(pids) > 1 or found.state == "FATAL"

    await_part(part, f"{local_address(settings, part)}/health", dead)


def stop_own(settings: Settings, own: OwnEngine) -> None:
    """Out of the stack and of its description, so that `up` does not bring it back."""
    with locked(settings):
        write_own(settings.state, [one for one in read_own(settings.state) if one.part != own.part])
    up(settings, lambda _: None, wait_for_engine=False)
