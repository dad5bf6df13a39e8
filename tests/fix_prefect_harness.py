"""A Prefect server of a test's own: what a flow leaves there, and the events that it sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_LOGGING_LEVEL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@contextmanager
def prefect_server() -> Iterator[None]:
    """The process's sender of events is bound to the server before, so it is ended on both sides."""
    quiet: dict[Any, Any] = {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_LOGGING_TO_API_ENABLED: False}
    EventsWorker.drain_all(timeout=5)
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(quiet):
        yield
        EventsWorker.drain_all(timeout=5)


def events_of(name: str) -> list[dict[str, Any]]:
    """From the server; it writes what it was sent a moment later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with get_client(sync_client=True) as client:
            answer = client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}})
        found: list[dict[str, Any]] = answer.json()["events"]
        if found:
            return found
        time.sleep(0.3)
    return []
