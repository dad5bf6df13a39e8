"""Rules about pods: drains, starts, queues, scaling from zero. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from serving.coherence.duration import shown
from serving.coherence.findings import Finding
from serving.coherence.model import Chain, Drain, Hop, least
from serving.coherence.rules_time import find, waits
from serving.coherence.worst import allowed, silent_seconds


def in_flight(chain: Chain, place: int | None) -> float:
    """Longest time for which a request can be in flight at a hop, or at the engine (None)."""
    if place is None:
        return max(allowed(chain.hops, chain.engine.bound, mode) for mode in chain.modes)
    return max(
        min(allowed(chain.hops[:place], None, mode), silent_seconds(chain.hops[place:], mode)) for mode in chain.modes
    )


def drains(chain: Chain) -> Iterator[Finding]:
    for place, hop in enumerate(chain.hops):
        if hop.drain:
            yield from _drain(chain, hop.name, hop.drain, in_flight(chain, place))
    if chain.engine.drain:
        yield from _drain(chain, chain.engine.name, chain.engine.drain, in_flight(chain, None))


def _drain(chain: Chain, name: str, drain: Drain, longest: float) -> Iterator[Finding]:
    given = drain.available()
    if not math.isinf(longest) and given < longest:
        how = f"it is killed {shown(given)} after it was told to stop"
        if drain.aborts and not drain.waits_for_idle and given < (drain.grace.value or 0):
            how = f"it aborts requests {shown(given)} after it was told to stop"
        message = f"{name}: a request may run {shown(longest)}; {how} (grace {drain.grace})"
        change = f"set terminationGracePeriodSeconds to {math.ceil(longest) + 30}"
        change += (
            ", with a preStop hook that waits until nothing runs" if drain.aborts and not drain.waits_for_idle else ""
        )
        yield find(chain, "drain-short", name, message, change, drain.grace, longest)
    if drain.pre_stop.value is None:
        message = f"{name} has no preStop hook"
        yield find(
            chain,
            "no-pre-stop",
            name,
            message,
            "add a preStop hook that sleeps 10 s or waits until nothing runs",
            drain.pre_stop,
        )
    elif drain.grace.value is not None and drain.pre_stop.value >= drain.grace.value:
        message = f"{name}: preStop sleeps {shown(drain.pre_stop.value)} of a grace period of {drain.grace}"
        yield find(
            chain,
            "pre-stop-over-grace",
            name,
            message,
            "sleep less, or raise terminationGracePeriodSeconds",
            drain.pre_stop,
        )


def starts(chain: Chain) -> Iterator[Finding]:
    engine = chain.engine
    if engine.cold_start is None:
        return
    need = shown(engine.cold_start)
    if engine.startup.value is not None and engine.startup.value <= engine.cold_start:
        rule = "liveness-short" if engine.liveness_only else "startup-short"
        message = f"{engine.name}: a cold start takes {need}; its probe ends it after {engine.startup}"
        yield find(
            chain,
            rule,
            engine.name,
            message,
            f"give a startupProbe a budget above {need}",
            engine.startup,
            engine.cold_start,
        )
    if engine.progress.value is not None and engine.progress.value <= engine.cold_start:
        message = f"{engine.name}: a cold start takes {need}; the rollout counts as failed after {engine.progress}"
        yield find(
            chain,
            "progress-short",
            engine.name,
            message,
            f"set progressDeadlineSeconds above {need}",
            engine.progress,
            engine.cold_start,
        )


def queues(chain: Chain) -> Iterator[Finding]:
    """The tightest limit on requests in flight may let in more than the engine computes at a time: the rest waits its turn."""
    engine, bound = chain.engine, chain.engine.bound
    limits = [(hop.name, hop.queue, hop.queue.value) for hop in chain.hops if hop.queue.value is not None]
    if engine.admits.value is not None:
        limits.append((engine.name, engine.admits, engine.admits.value * engine.replicas))
    if bound is None or not engine.max_num_seqs.value or not limits:
        return
    slots = engine.max_num_seqs.value * engine.replicas
    name, limit, let_in = min(limits, key=lambda each: each[2])
    turn = math.ceil((let_in - slots) / slots) * bound + (engine.prefill or 0.0)
    for mode in chain.modes:
        at = least(*(waits(each.limits(mode)) for each in chain.hops))
        if let_in > slots and at.value is not None and at.value <= turn:
            message = f"{name} lets {let_in:,.0f} requests in, the engine takes {slots:,.0f}: the last waits {shown(turn)}, the limit is {at}"
            change = f"set {limit.place} to at most {(limit.value or 0) * slots / let_in:,.0f}"
            yield find(chain, "queue-outlasts", name, message, change, limit)


def zero(chain: Chain) -> Iterator[Finding]:
    scaling, engine = chain.engine.scaling, chain.engine
    if scaling is None:
        return
    if len(scaling.scalers) > 1:
        message = f"{' and '.join(scaling.scalers)} scale {engine.name}"
        yield find(chain, "two-scalers", engine.name, message, "remove one of them", scaling.cooldown)
    if scaling.minimum == 0 and not scaling.held:
        message = f"{engine.name} scales to zero and no interceptor on the way holds requests"
        yield find(
            chain,
            "zero-unheld",
            engine.name,
            message,
            "send requests through the HTTP add-on's interceptor, or keep one replica",
            scaling.cooldown,
        )
    if scaling.wake is None:
        return
    if scaling.cooldown.value is not None and scaling.cooldown.value <= scaling.wake:
        message = f"{engine.name} wakes in {shown(scaling.wake)}, the cooldown is {scaling.cooldown}"
        yield find(
            chain,
            "cooldown-short",
            engine.name,
            message,
            f"set {scaling.cooldown.place} above {shown(scaling.wake)}",
            scaling.cooldown,
            scaling.wake,
        )
    if scaling.minimum == 0:
        yield from _wake(chain, scaling.wake)


def _held(chain: Chain, hop: Hop, wake: float) -> Iterator[Finding]:
    """Without a limit of its own the hold lasts as long as the whole request may; with a fallback another service answers."""
    hold = least(hop.readiness, hop.whole.total)
    if hop.falls_back or hold.value is None or hold.value > wake:
        return
    message = f"{hop.name} holds a request for {hold}; a wake takes {shown(wake)}"
    yield find(chain, "wake-over-hold", hop.name, message, f"set {hold.place} above {shown(wake)}", hold, wake)


def _wake(chain: Chain, wake: float) -> Iterator[Finding]:
    need = wake + (chain.engine.first_token or 0.0)
    for hop in chain.hops:
        if hop.kind == "interceptor":
            yield from _held(chain, hop, wake)
            continue
        for mode in chain.modes:
            at = waits(hop.limits(mode))
            if at.value is not None and at.value <= need:
                message = f"{hop.name} gives up after {at}; the first answer after a pause takes {shown(need)}"
                yield find(
                    chain,
                    "wake-over-limit",
                    hop.name,
                    message,
                    f"set {at.place} above {shown(need)}, or keep one replica",
                    at,
                )
