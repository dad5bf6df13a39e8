"""Replayed traffic on a cluster: each request is drawn by the candidate's weight here, and asks its version by its own name.

A cluster's gateway does not say who answered, and its endpoint picker writes the name that was asked for into every answer. So
both versions are measured at the same time by the route's rules for their own names; an error is laid on who was asked. The split
of the clients' requests is the gateway's, by the weights of the route that it has accepted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from serving.delivery.effect import DeliveryFailed
from serving.rollout.ask import Messages, ask
from serving.rollout.mirror import Drawn
from serving.rollout.model import Sample

LOOK_SECONDS = 0.5
NOT_THERE = ("HTTP 404", "HTTP 502", "HTTP 503")


class DrawnTraffic(Drawn):
    """`stable` and `candidate` are the names by which the versions are asked at the gateway's `url`."""

    def __init__(
        self,
        url: str,
        stable: str,
        candidate: str,
        prompts: Sequence[Messages],
        headers: Mapping[str, str] | None = None,
        rate: float = 80,
    ) -> None:
        super().__init__((stable, url), (candidate, url), prompts, headers=headers, rate=rate)
        self.weight = 0

    @contextmanager
    def flowing(self, weight: int) -> Iterator[None]:
        self.weight = weight
        with super().flowing(weight):
            yield

    def side(self) -> tuple[str, str]:
        return self.sides[random.random() * 100 < self.weight]

    def _ask(self, client: httpx.Client, messages: Messages) -> Sample:
        sample = super()._ask(client, messages)
        return replace(sample, served=sample.version)


def await_answer(url: str, version: str, headers: Mapping[str, str], seconds: float) -> None:
    """Until the gateway has taken the route of the version's own name. Raises DeliveryFailed."""
    deadline, question = time.monotonic() + seconds, [{"role": "user", "content": "ready?"}]
    with httpx.Client(timeout=60, headers=headers) as client:
        while not (sample := ask(client, url, version, question, "")).ok:
            if time.monotonic() > deadline or not sample.error.startswith(NOT_THERE):
                raise DeliveryFailed(f"the gateway at {url} does not answer as {version}: {sample.error}")
            time.sleep(LOOK_SECONDS)
