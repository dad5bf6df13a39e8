"""All requests of a step as the engines count them, read from Prometheus. Effect: HTTP.

They are judged beside the replayed ones and never instead of them. vLLM counts who asked nowhere, so clients' and replayed
requests are one number here; both are drawn by the weight. It needs an engine for each version (strategy pool): two adapters
on one engine share its counters. A request is seen with the next scrape, its first-token time as the bound of its bucket.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from serving.rollout.model import Sample

FIRST_TOKEN = "vllm:time_to_first_token_seconds_bucket"  # noqa: S105 - a metric
ENDED = "vllm:request_success_total"
ERROR = "error"  # finished_reason of what the engine itself could not answer; abort is a client that hung up
Counts = Mapping[str, float]  # by label value


class PrometheusUnread(Exception):
    """Prometheus does not answer, or not with a vector."""


@dataclass
class EngineCounters:
    """`url` is Prometheus', `namespace` the engines'. `start` begins a step; `samples` gives its requests so far."""

    url: str
    namespace: str
    read_seconds: float = 5.0
    sides: tuple[str, ...] = ()
    _before: dict[str, tuple[Counts, Counts]] = field(default_factory=dict)
    _seen: list[Sample] = field(default_factory=list)
    _read_at: float = -inf

    def start(self, stable: str, candidate: str, weight: int) -> None:
        """Raises PrometheusUnread."""
        self.sides, self._seen, self._read_at = (stable, candidate), [], time.monotonic()
        self._before = {name: self._counters(name) for name in self.sides}

    def samples(self) -> list[Sample]:
        """Raises PrometheusUnread."""
        if time.monotonic() - self._read_at >= self.read_seconds:
            self._read_at = time.monotonic()
            self._seen += self._new()
        return list(self._seen)

    def _new(self) -> list[Sample]:
        """Since the last read. Their order is not known, so they are shuffled: the bets must not see one version first."""
        found: list[Sample] = []
        for name in self.sides:
            now = self._counters(name)
            found += samples_between(name, self._before[name], now)
            self._before[name] = now
        random.shuffle(found)
        return found

    def _counters(self, name: str) -> tuple[Counts, Counts]:
        """(requests by first-token bound, ended requests by reason) of one member's pods."""
        pods = f'{{namespace="{self.namespace}",pod=~"{re.escape(name)}-.+"}}'
        return self._vector(FIRST_TOKEN + pods, "le"), self._vector(ENDED + pods, "finished_reason")

    def _vector(self, selector: str, label: str) -> Counts:
        query = f"sum by ({label}) ({selector})"
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10)
            result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
            return {each["metric"][label]: float(each["value"][1]) for each in result}
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise PrometheusUnread(
                f"Prometheus at {self.url} does not answer {query}: {type(error).__name__} {str(error)[:200]}; "
                "check LIFTLOCK_PROMETHEUS_URL, or unset it"
            ) from None


def samples_between(version: str, before: tuple[Counts, Counts], now: tuple[Counts, Counts]) -> list[Sample]:
    """Pure. A counter that fell belongs to an engine that was restarted, and counts from 0."""
    found: list[Sample] = []
    below, bounds = 0, sorted(now[0], key=float)
    for bound in bounds:
        upto = _grown(before[0].get(bound, 0), now[0][bound])
        seconds = float(bound) if float(bound) < inf else _largest(bounds)
        found += [Sample(version, True, seconds, served=version, seconds=seconds)] * max(upto - below, 0)
        below = max(below, upto)
    failed = _grown(before[1].get(ERROR, 0), now[1].get(ERROR, 0))
    found += [Sample(version, False, None, "the engine could not answer", version)] * failed
    return found


def _grown(before: float, now: float) -> int:
    return round(now - before if now >= before else now)


def _largest(bounds: list[str]) -> float:
    return max((float(bound) for bound in bounds if float(bound) < inf), default=0.0)
