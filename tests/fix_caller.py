"""Clients that ask at a fixed rate, whether the answers before came or not. What failed is kept in words."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.fix_waiting import PATIENCE_SECONDS

MOST_RUNNING = 32  # where the machine stands still no more are sent: they would wait for each other, release or not


@dataclass
class Caller:
    """A context manager: asks `model` at the gateway `rate` times a second while the block runs, and waits for the last answers.

    `left_out` were due and not sent, see MOST_RUNNING.
    """

    url: str
    model: str
    rate: float
    answered: int = 0
    left_out: int = 0
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Caller:
        self._ended, self._asking = threading.Event(), list[threading.Thread]()
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        self._client = httpx.Client(timeout=PATIENCE_SECONDS, limits=limits)
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._clock.join()
        for thread in self._asking:
            thread.join(PATIENCE_SECONDS)
        self._client.close()

    def _tick(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            self._asking = [thread for thread in self._asking if thread.is_alive()]
            if len(self._asking) < MOST_RUNNING:
                self._asking.append(threading.Thread(target=self._ask, daemon=True))
                self._asking[-1].start()
            else:
                self.left_out += 1
            due += 1 / self.rate
            self._ended.wait(max(0.0, due - time.monotonic()))

    def _ask(self) -> None:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
        try:
            answer = self._client.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        self.answered += 1
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
