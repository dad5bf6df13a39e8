"""Rules about time: nesting, cut answers, first chunks, idle limits. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from serving.coherence.duration import shown
from serving.coherence.findings import Finding
from serving.coherence.model import Chain, Hop, Limits, Setting, least
from serving.coherence.worst import silent_seconds


def find(chain: Chain, rule: str, hop: str, message: str, change: str, at: Setting, need: float = 0.0) -> Finding:
    return Finding(rule, chain.alias, chain.client, hop, message, change, at, need, at.patch)


def waits(limits: Limits) -> Setting:
    """What ends one try of this hop on a silent upstream, its total included."""
    return least(limits.patience(), limits.total)


def nesting(chain: Chain) -> Iterator[Finding]:
    """Every hop gives up strictly after everything behind it.

    Of a stream, only a client's limit on the first byte is compared: inside, a first chunk may be due long before the whole.
    """
    for streaming in chain.modes:
        for index, hop in enumerate(chain.hops[:-1]):
            limits = hop.limits(streaming)
            at = limits.longest() if streaming and hop.kind != "client" else waits(limits)
            if at.value is None:
                continue
            inner = range(index + 1, len(chain.hops) if hop.kind == "client" else index + 2)
            for behind in (place for place in inner if _bounds(chain.hops[place], streaming)):
                longest = silent_seconds(chain.hops[behind:], streaming)
                if not math.isinf(longest) and at.value <= longest:
                    yield _nested(chain, hop, chain.hops[behind], at, longest)


def _bounds(hop: Hop, streaming: bool) -> bool:
    return waits(hop.limits(streaming)).value is not None or bool(hop.retries.value)


def _nested(chain: Chain, outer: Hop, inner: Hop, at: Setting, longest: float) -> Finding:
    pairs = {"client": "client-router" if inner.kind == "router" else "client-route", "router": "router-route"}
    tries = int(inner.retries.value or 0) + 1 if inner.retries_timeouts else 1
    why = f"{tries} tries and the waits between them" if tries > 1 else "one try"
    message = f"{outer.name} gives up after {at}; {inner.name} may take {shown(longest)} ({why})"
    place = at.place if at.patch or not at.implicit else f"{outer.name} limit"
    change = f"set {place} above {shown(longest)}, or lower {inner.name} below {shown(at.value)}"
    return find(chain, pairs.get(outer.kind, "route-router"), outer.name, message, change, at, longest)


def cut(chain: Chain) -> Iterator[Finding]:
    """Limits on the whole exchange against the engine's longest answer."""
    bound = chain.engine.bound
    for streaming in chain.modes if bound is not None else ():
        for hop in chain.hops:
            at = hop.limits(streaming).longest()
            if at.value is not None and bound is not None and at.value <= bound:
                message = f"{hop.name} cuts after {at}; {chain.engine.tokens:,} tokens take {shown(bound)}"
                change = f"set {at.place} above {shown(bound)}, or lower max_tokens to {tokens_in(chain, at.value):,}"
                yield find(chain, "answer-cut", hop.name, message, change, at, bound)


def tokens_in(chain: Chain, time: float) -> int:
    """Tokens that come through in so many seconds; needs prefill and inter-token time."""
    step = chain.engine.inter_token or math.inf
    return max(0, math.floor((time - (chain.engine.first_token or 0.0)) / step + 1e-9))


def unbounded(chain: Chain) -> Iterator[Finding]:
    """No limit between client and engine that someone wrote."""
    behind = chain.hops[1:]
    if not behind:
        return
    all_of = [at for hop in behind for mode in chain.modes for at in _every(hop.limits(mode))]
    routes = [hop.limits(mode).total.value for hop in behind if hop.kind == "route" for mode in chain.modes]
    written = any(at.value is not None and not at.implicit for at in all_of)
    if not written and all(value is None for value in routes):  # a route's default is a rule of its own
        hop = next((each for each in behind if each.kind == "router"), behind[-1])
        at = waits(hop.limits(chain.modes[-1]))
        message = (
            f"nothing between {chain.client} and {chain.engine.name} has a limit that someone wrote; the first is {at}"
        )
        yield find(
            chain, "no-inner-bound", hop.name, message, f"write a limit at {hop.name}, below the clients' own", at
        )


def _every(limits: Limits) -> tuple[Setting, ...]:
    return limits.total, limits.attempt, limits.first, limits.idle


def implicit_routes(chain: Chain) -> Iterator[Finding]:
    for hop in chain.hops:
        for streaming in chain.modes:
            at = hop.limits(streaming).total
            if hop.kind == "route" and at.implicit and at.value is not None:
                message = f"{hop.name} cuts every answer after {at}"
                yield find(chain, "implicit-route-timeout", hop.name, message, "write the route's timeout out", at)


def first_chunk(chain: Chain) -> Iterator[Finding]:
    """Limits before the first byte, and between bytes."""
    first, bound = chain.engine.first_token, chain.engine.bound
    for hop in chain.hops:
        stream, whole = hop.streaming, hop.whole
        if True in chain.modes and first is not None:
            yield from _below(chain, hop, "stream-first-chunk", stream.first, first, "queue and prefill take")
            if stream.idle != stream.first:
                yield from _below(chain, hop, "idle-first-token", stream.idle, first, "queue and prefill take")
        if False in chain.modes and bound is not None:
            at = least(whole.idle, whole.first)
            yield from _below(chain, hop, "idle-whole-answer", at, bound, "the longest answer, not streamed, takes")


def _below(chain: Chain, hop: Hop, rule: str, at: Setting, need: float, what: str) -> Iterator[Finding]:
    if at.value is not None and at.value <= need:
        message = f"{hop.name} gives up after {at} without a byte; {what} {shown(need)}"
        yield find(chain, rule, hop.name, message, f"set {at.place} above {shown(need)}", at, need)
