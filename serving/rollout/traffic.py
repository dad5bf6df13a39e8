"""Replayed traffic through the gateway, in the background while a step is watched."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from serving.rollout.ask import Messages, ask
from serving.rollout.model import Sample


class Traffic:
    """Requests from a pool of prompts, `concurrency` at a time, in the background between start and stop.

    A request that does not answer within `patience` seconds has failed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompts: Sequence[Messages],
        version_header: str,
        concurrency: int = 4,
        patience: float = 60,
    ) -> None:
        self.url, self.model, self.version_header, self.concurrency = url, model, version_header, concurrency
        self.patience = patience
        self._prompts: Iterator[Messages] = itertools.cycle(prompts)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._samples: list[Sample] = []

    def samples(self) -> list[Sample]:
        """Those answered since the start, in order of their end."""
        with self._lock:
            return list(self._samples)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Requests are sent while the block runs; those under way at its end are not waited for."""
        self._stop, self._samples = threading.Event(), []
        for _ in range(self.concurrency):
            threading.Thread(target=self._send, args=(self._stop, self._samples), daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()

    def _send(self, stop: threading.Event, samples: list[Sample]) -> None:
        with httpx.Client(timeout=self.patience) as client:
            while not stop.is_set():
                with self._lock:
                    messages = next(self._prompts)
                sample = ask(client, self.url, self.model, messages, self.version_header)
                with self._lock:
                    samples.append(sample)
