"""The ten metrics of a canary step: what each reads from a request, and what is tolerated. Pure.

A time or length is compared as a ratio to stable's; below its floor it counts as the floor, because less is the machine's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, log, nan

import numpy as np

from serving.rollout.bets import Array, Flags
from serving.rollout.model import Sample

SHORTEST = 8  # tokens; the end-to-end time of a shorter answer is spread over so many, or it would be its first token's
INTER_TOKEN_FLOOR, PER_TOKEN_FLOOR = 0.01, 0.02
MOST_LONGER, MOST_SHORTER = 4.0, 8.0  # new answers may be longer or shorter: a release that changes nothing is rare


@dataclass(frozen=True)
class Metric:
    """`value` is NaN where the request says nothing and infinite where it failed. Higher is worse.

    `ratio` 0: what the policy tolerates of times. `unit` is s, tokens, or a share's "".
    """

    name: str
    said: str
    value: Callable[[Sample], float]
    unit: str = ""
    ratio: float = 0.0
    floor: float = 0.0

    @property
    def event(self) -> bool:
        return self.unit == ""


def _first_token(sample: Sample) -> float:
    return inf if not sample.ok else nan if sample.first_token_seconds is None else sample.first_token_seconds


def _inter_token(sample: Sample) -> float:
    gap = sample.inter_token_seconds
    return inf if not sample.ok else nan if gap is None else gap


def _per_token(sample: Sample) -> float:
    return inf if not sample.ok else sample.seconds / max(sample.tokens, SHORTEST)


def _of_ok(read: Callable[[Sample], float]) -> Callable[[Sample], float]:
    return lambda sample: read(sample) if sample.ok else nan


def _where_counted(read: Callable[[Sample], float]) -> Callable[[Sample], float]:
    """A client's stream tells its tokens only where the client asked for them."""
    return lambda sample: read(sample) if sample.tokens else nan


METRICS = (
    Metric("errors", "failed requests", lambda sample: float(not sample.ok)),
    Metric("first_token", "first token", _first_token, "s"),
    Metric("inter_token", "time between tokens", _inter_token, "s", floor=INTER_TOKEN_FLOOR),
    Metric("per_token", "end-to-end time per output token", _per_token, "s", floor=PER_TOKEN_FLOOR),
    Metric("longer", "output length", _of_ok(lambda sample: float(max(sample.tokens, 1))), "tokens", MOST_LONGER),
    Metric("shorter", "output shortness", _of_ok(lambda sample: 1 / max(sample.tokens, 1)), "tokens", MOST_SHORTER),
    Metric("cut", "answers cut at the limit", _of_ok(lambda sample: float(sample.finish == "length"))),
    Metric("empty", "empty answers", _of_ok(lambda sample: float(sample.empty))),
    Metric("refused", "refused answers", _of_ok(lambda sample: float(sample.refused))),
    Metric("flagged", "answers stopped by a filter", _of_ok(lambda sample: float(sample.finish == "content_filter"))),
)
CLIENT_METRICS = (
    *METRICS[:4],
    *(replace(one, value=_where_counted(one.value)) for one in METRICS[4:6]),
)  # what the access log says of a client's request
END_TO_END = Metric(
    "end_to_end", "whole answer", lambda sample: sample.seconds if sample.ok else inf, "s"
)  # only as a limit
DIFFERENT = Metric(
    "different",
    "answers other than the release's own",
    _of_ok(lambda sample: nan if sample.different is None else float(sample.different)),
)  # only as a limit: a new version's answers differ from stable's by right
NAMED = {metric.name: metric for metric in (*METRICS, END_TO_END, DIFFERENT)}


def values(metric: Metric, samples: Sequence[Sample]) -> Array:
    return np.array([metric.value(sample) for sample in samples], dtype=float)


def logs(found: Array, floor: float) -> Array:
    """Logarithms of times with the floor in place; NaN and infinite stay."""
    return np.asarray(np.log(np.maximum(found, max(floor, 1e-6))))


def shifted(found: Array, canary: Flags, ratio: float) -> Array:
    """The candidate's with the tolerated ratio taken off."""
    return np.asarray(found - np.where(canary, log(ratio), 0.0))
