"""Rules about tries, connections and cancellation. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from serving.coherence.duration import shown
from serving.coherence.findings import Finding
from serving.coherence.model import Chain, Hop, least
from serving.coherence.rules_time import find
from serving.coherence.worst import amplification, silent_seconds

MOST_RETRIES = 2


def layers(chain: Chain) -> Iterator[Finding]:
    trying = [hop for hop in chain.hops if hop.retries.value]
    if len(trying) > 1:
        names = " × ".join(f"{hop.name} {int(hop.retries.value or 0) + 1}" for hop in trying)
        message = f"{names}: one request becomes {amplification(chain.hops)} at the engine"
        inner = trying[-1]
        yield find(
            chain,
            "retries-two-layers",
            inner.name,
            message,
            f"set {inner.retries.place} to 0, or the others",
            inner.retries,
        )
    for hop in trying:
        yield from _one(chain, hop)


def _one(chain: Chain, hop: Hop) -> Iterator[Finding]:
    tries = int(hop.retries.value or 0) + 1
    if tries - 1 > MOST_RETRIES:
        yield find(
            chain,
            "retry-many",
            hop.name,
            f"{hop.name} tries {tries} times",
            f"set {hop.retries.place} to {MOST_RETRIES}",
            hop.retries,
        )
    if hop.backoff[0] == 0:
        at = hop.retries if hop.backoff_where.value is None else hop.backoff_where
        yield find(
            chain, "retry-no-backoff", hop.name, f"{hop.name} tries again at once", "set its backoff to 500ms", at
        )
    if hop.retries_after_first_byte:
        message = f"{hop.name} tries again after the first byte"
        yield find(chain, "retry-after-first-byte", hop.name, message, "retry only before the first byte", hop.retries)
    for mode in chain.modes:
        limits = hop.limits(mode)
        if limits.total.value is None or limits.attempt.value is None or limits.attempt is limits.total:
            continue
        need = tries * limits.attempt.value + hop.waits()
        if limits.attempt.value <= limits.total.value < need:
            message = f"{tries} tries of {limits.attempt} need {shown(need)}; {hop.name} ends them after {limits.total}"
            change = f"set {limits.attempt.place} to at most {shown((limits.total.value - hop.waits()) / tries)}"
            yield find(chain, "retry-unfinished", hop.name, message, change, limits.attempt)


def odd(chain: Chain) -> Iterator[Finding]:
    """Values that contradict each other within one hop."""
    for hop in chain.hops:
        limits = hop.whole
        if hop.hedges:
            message = f"{hop.name} starts a second try beside the first"
            yield find(chain, "retry-hedged", hop.name, message, "turn hedging off", hop.retries)
        one = least(limits.attempt, limits.first) if hop.kind == "route" else limits.attempt
        if one.value is not None and limits.total.value is not None and one.value > limits.total.value:
            message = f"one try may take {one}, all together {limits.total}"
            change = f"set {one.place} to at most {shown(limits.total.value)}"
            yield find(chain, "backend-over-request", hop.name, message, change, one)
        allowed = min((each for each in (limits.attempt.value, limits.total.value) if each is not None), default=None)
        if hop.connect.value is not None and allowed is not None and hop.connect.value >= allowed:
            message = f"connecting may take {hop.connect}, a try {shown(allowed)}"
            yield find(chain, "connect-over-attempt", hop.name, message, f"set {hop.connect.place} to 5 s", hop.connect)


def cancellation(chain: Chain) -> Iterator[Finding]:
    """Hops that go on where the one above has gone: always, or where the answer is not streamed."""
    for place, hop in enumerate(chain.hops):
        lost = [mode for mode in chain.modes if not hop.tells(mode)]
        if hop.kind == "client" or not lost:
            continue
        longest = max(silent_seconds(chain.hops[place:], mode) for mode in lost)
        how_long = "until the engine has answered" if math.isinf(longest) else f"for up to {shown(longest)}"
        message, change, at = (
            f"{hop.name} goes on {how_long} after its client has gone",
            "pass the disconnect on",
            hop.retries,
        )
        if hop.cancels:
            message += ", where the answer is not streamed"
            change, at = f"set {hop.cancels_whole.place} to true (from LiteLLM 1.90 on), or stream", hop.cancels_whole
        yield find(chain, "cancel-lost", hop.name, message, change, at, longest)


def keep_alive(chain: Chain) -> Iterator[Finding]:
    last, kept = chain.hops[-1], chain.engine.keep_alive
    if (
        last.kind == "route"
        and None not in (last.pool_idle.value, kept.value)
        and (last.pool_idle.value or 0) >= (kept.value or 0)
    ):
        message = f"{last.name} keeps unused connections for {last.pool_idle}, the engine for {kept}"
        change = f"set {last.pool_idle.place} below {shown(kept.value)}"
        yield find(chain, "keep-alive-race", last.name, message, change, last.pool_idle)
