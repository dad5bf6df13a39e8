"""A bar with time left on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_SECONDS = 15.0


class Progress:
    """`update(done, total, note)` as often as one likes."""

    def __init__(self, console: Console, what: str) -> None:
        self.console, self.what = console, what
        self._said = self._began = time.monotonic()
        columns = (
            TextColumn("… {task.description:<13}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(what, total=None, note="") if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._said >= PLAIN_SECONDS and done:
            self._said = time.monotonic()
            left = (self._said - self._began) * (total - done) / done
            self.console.print(
                f"  {self.what}: {done} of {total}, {left:.0f} s left {note}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
