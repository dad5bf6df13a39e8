"""Strategy swap: one engine after the other, where there is no room for two. While one replaces the other nobody is served by it.

In the gap the gateway asks the fallback where one is set on another server, and else tells clients when to ask again. The
engine of before comes back where the new one does not start, is not warm, or is judged bad.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.engine import await_idle
from serving.gateway.drain import drained
from serving.rollout.local import LocalTarget


@dataclass(frozen=True, kw_only=True)
class SwapTarget(LocalTarget):
    """`replace(True)` puts the candidate's engine in the place of the running one, `replace(False)` the one of before, and returns
    when it answers; `replaced` says whether the candidate's was put there, even if it does not answer.
    `models` are all that the engine serves. Times in seconds.
    """

    replace: Callable[[bool], None]
    replaced: Callable[[], bool]
    models: Sequence[str]
    gap_seconds: float
    drain_limit: float

    def place(self, model: str, candidate: str) -> None:
        """The gap begins here, and ends for `model` with its first weight. After a kill it is done again, whatever was done."""
        self._put(True)
        for other in self.models:
            if other != model:
                self.gateway.reopen(other)

    def restore(self, model: str, stable: str) -> None:
        if self.replaced():
            self._put(False)
        super().restore(model, stable)
        for other in self.models:
            self.gateway.reopen(other)

    def _put(self, candidate: bool) -> None:
        for one in self.models:
            self.gateway.close(one, self.gap_seconds)
        deadline = time.monotonic() + self.drain_limit
        sides = [(one, side, None) for one in self.models for side in ("stable", "candidate")]
        drained(self.gateway, sides, self.drain_limit)
        await_idle(self.gateway.engine_url, deadline)  # of the requests of the base model's name too
        self.replace(candidate)


def gap_told(start_seconds: float | None, drain_seconds: float, fallback: str | None) -> str:
    """For people, before the gap begins."""
    start = f"its last start took {start_seconds:.0f} s" if start_seconds else "how long it starts is not known here"
    who = (
        f"{fallback} answers meanwhile" if fallback else "clients get 503 with retry-after, because no fallback is set"
    )
    return f"one engine replaces the other: {start}, after at most {drain_seconds:.0f} s of draining; {who}"
