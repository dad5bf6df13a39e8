"""Proof of the split: the share that the candidate answered, by the engine's own word, against the weight. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import beta  # type: ignore[import-untyped]

from serving.rollout.model import Sample, Share

CONFIDENCE = 0.999  # of one look; a split that looks wrong is held, and shown or not by the requests that follow
ROUNDING = 0.01  # gateways hold weights in whole percent


def exact_interval(hits: int, total: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's, Biometrika 26 (1934) 404-413; (0, 1) where there are no requests."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, total - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, total - hits)) if hits < total else 1.0
    return low, high


def share_of(samples: Sequence[Sample], stable: str, candidate: str, weight: int) -> Share:
    """Shown where the interval holds the weight, to a percent, and the candidate was asked at all."""
    names = [sample.answered_by for sample in samples]
    hits = names.count(candidate)
    total = hits + names.count(stable)
    low, high = exact_interval(hits, total, CONFIDENCE)
    asked = weight / 100
    return Share(asked, hits, total, low, high, hits > 0 and low - ROUNDING <= asked <= high + ROUNDING)


def said_differently(samples: Sequence[Sample]) -> Sample | None:
    """The first answer that the engine signs with another name than the gateway's header."""
    return next((one for one in samples if one.served and one.version and one.served != one.version), None)
