"""Runs jobs on a few threads; the first failure stops the others, and is the one that is raised."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
Check = Callable[[], None]


class _Stopped(Exception):
    """Another job failed, so this one is given up. Never leaves this file."""


def run_all(jobs: Sequence[Callable[[Check], T]], streams: int) -> list[T]:
    """Results in order. Each job gets a function to call now and then: it ends the job where another one failed."""
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    def guarded(job: Callable[[Check], T]) -> T:
        finished = False
        try:
            check()
            result = job(check)
            finished = True
        finally:
            if not finished:
                stop.set()
        return result

    with ThreadPoolExecutor(streams, "modelcar") as pool:
        futures = [pool.submit(guarded, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # also where the wait itself was interrupted
            pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled() and (error := future.exception()) and not isinstance(error, _Stopped):
            raise error
    return [future.result() for future in futures]
