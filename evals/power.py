"""How many items a rule needs, and what a suite at hand can show. Pure; normal approximation, planned before anything is run.

n = ((z_alpha + z_power) x deviation / gap)^2, one-sided: J. M. Lachin, Controlled Clinical Trials 2 (1981) 93-113. The
deviation is of candidate - baseline per item. For right-or-wrong scores of two equally good models it follows from their
rate of right answers and their correlation: variance = 2 x rate x (1 - rate) x (1 - correlation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist, fmean

POWER = 0.8  # what "would decide" means for a run that is over
MOST_ITEMS = 10_000_000  # more than this is as good as never


@dataclass(frozen=True)
class Plan:
    """`items_needed` for `effect` (how far the truth is from what is refused); `detectable` by `items_at_hand`."""

    alpha: float
    power: float
    deviation: float
    deviation_from: str
    effect: float
    items_needed: int
    items_at_hand: int | None
    detectable: float | None
    reasons: tuple[str, ...]


def items_for(deviation: float, effect: float, alpha: float, power: float = POWER) -> int | None:
    """Items in all; None where no suite would do."""
    if effect <= 0:
        return None
    needed = ((_z(alpha) + _z(1 - power)) * deviation / effect) ** 2
    return None if needed > MOST_ITEMS else max(2, ceil(needed))


def detectable(deviation: float, items: int, alpha: float, power: float) -> float:
    """The smallest effect that `items` show with probability `power`."""
    return (_z(alpha) + _z(1 - power)) * deviation / sqrt(items)


def paired_deviation(rate: float, correlation: float) -> float:
    """Of the difference of two right-or-wrong scores with the same `rate`. ValueError outside [0, 1]."""
    if not 0 < rate < 1 or not 0 <= correlation < 1:
        raise ValueError(f"rate is {rate} and correlation {correlation}; they must lie in (0, 1) and [0, 1)")
    return sqrt(2 * rate * (1 - rate) * (1 - correlation))


def run_to_run_deviation(first: Sequence[float], second: Sequence[float]) -> float:
    """Per item, of the difference between two runs over the same items, in the same order."""
    differences = [new - old for old, new in zip(first, second, strict=True)]
    mean = fmean(differences)
    return sqrt(sum((value - mean) ** 2 for value in differences) / (len(differences) - 1))


def plan(
    deviation: float, deviation_from: str, *, effect: float, alpha: float, power: float, items_at_hand: int | None
) -> Plan:
    """ValueError where the effect needs more than MOST_ITEMS, or a suite at hand has no items."""
    needed = items_for(deviation, effect, alpha, power)
    if needed is None:
        raise ValueError(f"an effect of {effect} needs more than {MOST_ITEMS:,} items; it must be larger")
    if items_at_hand is not None and items_at_hand < 1:
        raise ValueError("the suite at hand has no items (n = 0)")
    found = None if items_at_hand is None else detectable(deviation, items_at_hand, alpha, power)
    said = [
        f"{needed} items show an effect of {effect:.3f} with probability {power:.0%} at alpha {alpha:g} "
        f"(deviation of a difference {deviation:.3f}, {deviation_from})."
    ]
    if items_at_hand is not None and found is not None:
        enough = "enough" if items_at_hand >= needed else f"{needed - items_at_hand} too few"
        said.append(f"The suite at hand has {items_at_hand}: {enough}. It shows effects from {found:.3f} on.")
    return Plan(alpha, power, deviation, deviation_from, effect, needed, items_at_hand, found, tuple(said))


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)
