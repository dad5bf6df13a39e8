"""Worst-case time and tries of a chain, in closed form. Pure.

A silent engine is the worst: every hop waits as long as it may, and tries as often as it may. A hop whose caller has gone is ended
where it passes cancellation on, and goes on alone where it does not.
"""

from __future__ import annotations

import math

from serving.coherence.model import Hop

FOREVER = math.inf


def silent_seconds(hops: tuple[Hop, ...], streaming: bool) -> float:
    """Until the first of `hops` gives up on a silent engine; infinite where none ever does."""
    if not hops:
        return FOREVER
    hop, limits = hops[0], hops[0].limits(streaming)
    patience, behind = limits.patience().value, silent_seconds(hops[1:], streaming)
    one = behind if patience is None else min(patience, behind)
    tries = int(hop.retries.value or 0) + 1
    if not hop.retries_timeouts and patience is not None and patience <= behind:
        tries = 1
    all_tries = FOREVER if math.isinf(one) else tries * one + (hop.waits() if tries > 1 else 0.0)
    return min(FOREVER if limits.total.value is None else limits.total.value, all_tries)


def amplification(hops: tuple[Hop, ...]) -> int:
    """Requests at the engine for one of the client's, where the engine refuses at once: the product over the layers."""
    return math.prod(int(hop.retries.value or 0) + 1 for hop in hops)


def allowed(hops: tuple[Hop, ...], bound: float | None, streaming: bool) -> float:
    """Longest time for which a request can be in flight below `hops`; the engine's own bound where that is less."""
    least = FOREVER if bound is None else bound
    for hop in hops:
        limits = hop.limits(streaming)
        longest = limits.longest().value
        idle = None if streaming else limits.patience().value  # a whole answer is one silence, then everything at once
        least = min([least, *(each for each in (longest, idle) if each is not None)])
    return least
