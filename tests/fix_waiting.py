"""How long the tests wait for what others do: long enough for a machine four times slower, and no longer than it takes on any."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 180


def await_that(
    holds: Callable[[], Any],
    seconds: float = PATIENCE_SECONDS,
    why: Callable[[], object] = lambda: "it did not come about",
) -> Any:
    """The first value that counts as true. `why` says what stood instead."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{why()}, in {seconds} s"
        time.sleep(0.2)
    return found
