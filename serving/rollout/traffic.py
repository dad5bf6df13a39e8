"""Replayed traffic through the gateway, in the background while a step is watched."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from serving.rollout.ask import Messages, answered
from serving.rollout.golden import Golden, key_of
from serving.rollout.model import Sample

LOOK_SECONDS = 0.02
MOST_WAIT_SECONDS = 1.0  # where clients never pause, the release goes on all the same


class Traffic:
    """Requests from a pool of prompts, `concurrency` at a time, in the background between start and stop.

    A request that does not answer within `patience` seconds has failed. `headers`, such as a key, go with each. At most `rate` are
    sent a second, so that a fast engine is not kept busy by its own canary. Answers to `golden` prompts are compared with the record.
    `under_way` says how many requests the gateway has at this moment, these included: while clients have some there, the next one
    waits, at most MOST_WAIT_SECONDS, because on a slow engine it would lengthen theirs.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompts: Sequence[Messages],
        version_header: str,
        concurrency: int = 4,
        patience: float = 60,
        headers: Mapping[str, str] | None = None,
        rate: float = 80,
        golden: Sequence[Golden] = (),
        under_way: Callable[[], int] | None = None,
    ) -> None:
        self.url, self.model, self.version_header, self.concurrency = url, model, version_header, concurrency
        self.patience, self.headers, self.rate = patience, dict(headers or {}), rate
        self._under_way, self._own = under_way, 0
        self._golden = {key_of(one.messages): one.answer for one in golden}
        self._prompts: Iterator[Messages] = itertools.cycle(prompts)
        self._lock = threading.Lock()
        self._slots: list[Sample | None] = []
        self._stop = threading.Event()

    def rest(self) -> None:
        """Nothing more is sent until it flows again; what was answered stays."""
        self._stop.set()

    def samples(self) -> list[Sample]:
        """Those since the start in the order in which they were sent, up to the first that is under way.

        In this order the gateway's draws are independent of what was measured. In the order of answers they are not: while a
        candidate is slow, its requests would be missing, and the bets on who answered would be no fair game.
        """
        with self._lock:
            return [sample for sample in itertools.takewhile(lambda slot: slot is not None, self._slots) if sample]

    @contextmanager
    def flowing(self, weight: int) -> Iterator[None]:
        """Requests are sent while the block runs; those under way at its end are not waited for.

        `weight` is the candidate's in percent; it is for a traffic that draws itself. Here the gateway does.
        """
        stop = self._stop = threading.Event()
        self._slots = []
        for _ in range(self.concurrency):
            threading.Thread(target=self._send, args=(stop, self._slots), daemon=True).start()
        try:
            yield
        finally:
            stop.set()

    def _send(self, stop: threading.Event, slots: list[Sample | None]) -> None:
        with httpx.Client(timeout=self.patience, headers=self.headers) as client:
            while self._way_is_free(stop):
                with self._lock:
                    messages, place = next(self._prompts), len(slots)
                    slots.append(None)
                    self._own += 1
                sample = self._ask(client, messages)
                with self._lock:
                    slots[place] = sample
                    self._own -= 1
                stop.wait(max(0.0, self.concurrency / self.rate - sample.seconds))

    def _way_is_free(self, stop: threading.Event) -> bool:
        """Returns when no client has a request at the gateway, or the wait is over; False once traffic is to stop."""
        until = time.monotonic() + MOST_WAIT_SECONDS
        while self._clients() and time.monotonic() < until and not stop.wait(LOOK_SECONDS):
            pass
        return not stop.is_set()

    def _clients(self) -> bool:
        if self._under_way is None:
            return False
        with self._lock:
            own = self._own
        try:
            return self._under_way() > own
        except httpx.HTTPError:  # whether the gateway answers is for the step to judge
            return False

    def _ask(self, client: httpx.Client, messages: Messages) -> Sample:
        sample, text = answered(client, self.url, self.model, messages, self.version_header)
        recorded = self._golden.get(key_of(messages))
        return sample if recorded is None else replace(sample, different=text != recorded)
