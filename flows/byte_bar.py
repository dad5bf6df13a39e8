"""Progress of a transfer on standard error: a bar with bytes, rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

PLAIN_SECONDS = 5.0


class ByteBar:
    """`update(done, total)` as often as one likes, from any thread; both in bytes."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._lock = threading.Lock()
        self._began = self._said = time.monotonic()
        columns = (
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        )  # fmt: skip
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(what, total=None) if self._bar else None

    def __enter__(self) -> ByteBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        with self._lock:
            now = time.monotonic()
            if now - self._said < PLAIN_SECONDS or not done:
                return
            self._said = now
        left = (now - self._began) * (total - done) / done
        self._console.print(f"  {self._what}: {decimal(done)} of {decimal(total)}, {left:.0f} s left")
