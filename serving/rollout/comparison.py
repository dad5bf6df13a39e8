"""The eval gate's own comparison of both live sides, in the background of a step without weight.

What compares is passed in, because the gate is not known here. Nothing of it is kept: the step of a killed pipeline begins anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.rollout.model import Decision, Finding

Tell = Callable[[int, int], None]  # (answers so far, of so many); raises Stopped where nobody waits any more
METRIC = "gate"
GO_ON: Decision = "go_on"
UNDO: Decision = "undo"


class Stopped(Exception):
    """The step ended before the comparison did."""


@dataclass(frozen=True)
class Verdict:
    """`stable` and `candidate` are mean scores, `low` and `high` the interval of their difference; None: not measured."""

    passed: bool
    reason: str
    stable: float | None = None
    candidate: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass
class Comparison:
    """`compare` asks both sides and judges; it begins at the first look and runs in a thread of its own."""

    compare: Callable[[Tell], Verdict]
    _verdict: Verdict | None = None
    _told: tuple[int, int] = (0, 0)
    _thread: threading.Thread | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def begun(self) -> bool:
        return self._thread is not None

    @property
    def running(self) -> bool:
        return self.begun and self._verdict is None

    @property
    def news(self) -> int:
        """Another number when there is something new to look at."""
        return self._told[0] + (0 if self._verdict is None else self._told[1] + 1)

    def look(self) -> Finding:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        found = self._verdict
        if found is None:
            note = f"the gate asks both live versions: {self._told[0]} of {self._told[1]} answers"
            return Finding(METRIC, None, None, None, None, 0.0, 1.0, "hold", note)
        odds, decision = (0.0, GO_ON) if found.passed else (1.0, UNDO)
        return Finding(METRIC, found.stable, found.candidate, found.low, found.high, odds, 1.0, decision, found.reason)

    def stop(self) -> None:
        """Whatever still runs ends at its next answer."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            self._verdict = self.compare(self._tell)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - a thread's error reaches nobody else, and the step would hold for ever
            self._verdict = Verdict(
                False, f"the gate could not compare the live versions: {type(error).__name__}: {error}"
            )

    def _tell(self, done: int, total: int) -> None:
        self._told = (done, total)
        if self._stopped.is_set():
            raise Stopped
