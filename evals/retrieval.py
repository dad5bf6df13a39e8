"""Figures of retrieval from the places of gold passages, and paired differences of two ways to retrieve. Pure.

nDCG after K. Jaervelin, J. Kekaelaeinen, ACM TOIS 20 (2002) 422-446, with gain 1 for each gold passage.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from evals.stats_means import standard_error

Verdict = Literal["passed", "rejected", "inconclusive"]
DEPTH = 10


@dataclass(frozen=True)
class Ranked:
    """One question's outcome: `places` of its gold passages among what was found, from 1; `gold` counts them all."""

    question: str
    places: tuple[int, ...]
    gold: int

    def recall(self, k: int) -> float:
        """Share of the gold passages among the first `k`; 0 where no passage is gold."""
        return sum(place <= k for place in self.places) / min(self.gold, k) if self.gold else 0.0

    @property
    def ndcg(self) -> float:
        if not self.gold:
            return 0.0
        got = sum(1 / math.log2(1 + place) for place in self.places if place <= DEPTH)
        return got / sum(1 / math.log2(1 + place) for place in range(1, min(self.gold, DEPTH) + 1))

    @property
    def reciprocal(self) -> float:
        return 1 / min(self.places) if self.places else 0.0


def places_of(gold: Collection[str], found: Sequence[str]) -> tuple[int, ...]:
    """Places of the gold passages in what was found, the best first, from 1."""
    return tuple(place for place, one in enumerate(found, 1) if one in gold)


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its two-sided interval."""

    mean: float
    low: float
    high: float


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def paired(first: Sequence[float], second: Sequence[float], alpha: float = 0.05) -> Difference:
    """`first` minus `second`, by Student's t on the differences. Both have one value a question, in the same order."""
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found = float(differences.mean())
    error = float(standard_error(differences, np.ones(len(differences))))
    reach = float(stdtrit(len(differences) - 1, 1 - alpha / 2)) * error
    return Difference(found, found - reach, found + reach)


def judge(now: Mapping[str, float], accepted: Mapping[str, float], margin: float) -> tuple[Verdict, Difference]:
    """Passed when not more than `margin` is lost, rejected when anything is shown to be lost, else inconclusive.

    Raises ValueError unless both are about the same questions.
    """
    if now.keys() != accepted.keys():
        other = sorted(now.keys() ^ accepted.keys())
        raise ValueError(f"the questions differ ({', '.join(other[:5])}, …): accept the new figures by --accept")
    names = sorted(now)
    difference = paired([now[name] for name in names], [accepted[name] for name in names])
    if difference.low > -margin:
        return "passed", difference
    return ("rejected" if difference.high < 0 else "inconclusive"), difference
