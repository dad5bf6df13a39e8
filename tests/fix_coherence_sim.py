"""A discrete-event simulation of a chain (simpy), as an oracle for the rules. It shares no arithmetic with serving.coherence.

Every hop is a generator that calls the next one in a process, with timers for its limits; a try that ends closes what it called. The engine
is silent, refuses at once, or answers. What breaks is read off the events: who gave up first, who tried again, who was cut, who was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from serving.coherence.model import Chain, Drain, Hop

Steps = Generator[simpy.Event, Any, str]
REMOVAL_SECONDS = 5.0  # from SIGTERM until no proxy sends there any more
NEVER = 1e9


@dataclass
class Seen:
    """Events of one request. A timer is (when, hop, whether it limits the whole exchange, whether a later try was cut by a total)."""

    timers: list[tuple[float, int, bool, bool]] = field(default_factory=list)
    tries: Counter[int] = field(default_factory=Counter)
    engine_starts: list[float] = field(default_factory=list)
    engine_spans: list[float] = field(default_factory=list)
    hop_spans: dict[int, float] = field(default_factory=dict)
    outcome: str = "nothing"
    ended: float = NEVER


class Simulation:
    """One request through a chain."""

    def __init__(self, chain: Chain, streaming: bool, engine: str, first: float = 0.0, seconds: float = 0.0) -> None:
        self.env, self.seen = simpy.Environment(), Seen()
        self.chain, self.streaming, self.engine, self.first, self.seconds = chain, streaming, engine, first, seconds

    def abandoned(self) -> Seen:
        """The client leaves after 1 s; what is left runs to its end."""

        def client() -> Generator[simpy.Event, Any, None]:
            call = self.env.process(self.called(1, self.env.event()))
            yield self.env.timeout(1.0)
            self.leave(call, 1)

        self.env.process(client())
        self.env.run()
        return self.seen

    def leave(self, call: simpy.Process, index: int) -> None:
        """A hop that is not told goes on alone."""
        if call.is_alive and (index == len(self.chain.hops) or self.chain.hops[index].tells(self.streaming)):
            call.interrupt()

    def run(self) -> Seen:
        done = self.env.process(self.client())
        self.env.run(until=self.env.any_of([done, self.env.timeout(NEVER)]))
        self.env.run()  # what goes on alone ends too
        return self.seen

    def client(self) -> Steps:
        self.seen.outcome = yield from self.hop(0, self.env.event())
        self.seen.ended = self.env.now
        return self.seen.outcome

    def timer(self, value: float | None) -> simpy.Event:
        return self.env.event() if value is None else self.env.timeout(value)

    def called(self, index: int, begun: simpy.Event) -> Steps:
        """What is behind hop index - 1, in a process of its own."""
        began = self.env.now
        try:
            if index < len(self.chain.hops):
                return (yield from self.hop(index, begun))
            return (yield from self.answer(begun))
        except simpy.Interrupt:
            return "gone"
        finally:
            spent = self.env.now - began
            if index < len(self.chain.hops):
                self.seen.hop_spans[index] = max(self.seen.hop_spans.get(index, 0.0), spent)
            else:
                self.seen.engine_spans.append(spent)

    def answer(self, begun: simpy.Event) -> Steps:
        self.seen.engine_starts.append(self.env.now)
        if self.engine == "silent":
            yield self.env.event()
        if self.engine == "refuses":
            yield self.env.timeout(0)
            return "error"
        if self.streaming:
            yield self.env.timeout(self.first)
            begun.succeed()
            yield self.env.timeout(self.seconds - self.first)
        else:
            yield self.env.timeout(self.seconds)
        return "answer"

    def hop(self, index: int, begun: simpy.Event) -> Steps:
        one = self.chain.hops[index]
        limits = one.limits(self.streaming)
        total = self.timer(limits.total.value)
        for turn in range(int(one.retries.value or 0) + 1):
            if turn:
                wait = self.env.timeout(min(one.backoff[1], one.backoff[0] * 2 ** (turn - 1)) + one.jitter)
                yield self.env.any_of([total, wait])
                if total.processed:
                    break
            self.seen.tries[index] += 1
            outcome = yield from self.once(index, one, begun, total, turn)
            if outcome != "error" or total.processed or begun.triggered:
                return outcome if outcome != "late" else "error"
        if one.waits_after_last and one.retries.value and not total.processed:
            yield self.env.any_of([total, self.env.timeout(min(one.backoff[1], one.backoff[0] * 2**turn) + one.jitter)])
        return "error"

    def once(self, index: int, one: Hop, begun: simpy.Event, total: simpy.Event, turn: int) -> Steps:
        limits = one.limits(self.streaming)
        attempt, quiet = (
            self.timer(limits.attempt.value),
            [self.timer(each.value) for each in (limits.first, limits.idle)],
        )
        inner = self.env.event()
        call = self.env.process(self.called(index + 1, inner))
        try:
            yield self.env.any_of([total, attempt, *quiet, call, inner])
            if inner.triggered and not call.triggered and not total.processed and not attempt.processed:
                if not begun.triggered:
                    begun.succeed()
                yield self.env.any_of([total, attempt, call])  # bytes flow: no idle limit fires
        except simpy.Interrupt:
            self.leave(call, index + 1)
            raise
        if call.triggered:
            return str(call.value)
        whole = total.processed or attempt.processed
        self.seen.timers.append(
            (self.env.now, index, whole, bool(total.processed and turn and limits.attempt.value is not None))
        )
        self.leave(call, index + 1)
        return "error" if one.retries_timeouts or total.processed else "late"


def limited(hop: Hop, streaming: bool) -> bool:
    limits = hop.limits(streaming)
    return any(each.value is not None for each in (limits.total, limits.attempt, limits.first, limits.idle))


def broken(chain: Chain) -> list[str]:
    """What goes wrong, in words."""
    wrong: list[str] = []
    spans: list[float] = []
    routers: dict[int, float] = {}
    for streaming in chain.modes:
        wrong += [f"silent, streaming {streaming}: {each}" for each in _silent(chain, streaming, spans, routers)]
        if max(Simulation(chain, streaming, "silent").abandoned().engine_spans) > 1:
            wrong.append(f"the engine works on for a client that has gone, streaming {streaming}")
        first, bound = chain.engine.first_token or 0.0, chain.engine.bound or 0.0
        seen = Simulation(chain, streaming, "answers", first, bound).run()
        wrong += (
            [f"the longest answer is cut, streaming {streaming}"] if seen.timers or seen.outcome != "answer" else []
        )
    wrong += _refused(chain)
    wrong += _stopped(chain.engine.drain, max(spans), "engine")
    for index, longest in routers.items():
        wrong += _stopped(chain.hops[index].drain, longest, chain.hops[index].name)
    wrong += [
        "the API refuses it"
        for hop in chain.hops
        for one in (hop.whole.attempt, hop.whole.first)
        if hop.kind == "route" and (one.value or 0) > (hop.whole.total.value or NEVER)
    ]
    return wrong


def _silent(chain: Chain, streaming: bool, spans: list[float], routers: dict[int, float]) -> list[str]:
    seen, wrong = Simulation(chain, streaming, "silent").run(), []
    for _, index, whole, unfinished in seen.timers:
        deeper = any(limited(hop, streaming) for hop in chain.hops[index + 1 :])
        if deeper and (index == 0 or not streaming or whole):
            wrong.append(f"{chain.hops[index].name} gives up before what is behind it")
        if unfinished:
            wrong.append(f"{chain.hops[index].name}'s total cuts a later try")
    endless = Simulation(chain, streaming, "answers", chain.engine.first_token or 0.0, NEVER).run()
    spans.append(min(chain.engine.bound or NEVER, max([*seen.engine_spans, *endless.engine_spans])))
    for index, spent in seen.hop_spans.items():
        routers[index] = max(routers.get(index, 0.0), spent)
    return wrong


def _refused(chain: Chain) -> list[str]:
    seen = Simulation(chain, chain.modes[0], "refuses").run()
    tried = [index for index, hop in enumerate(chain.hops) if hop.retries.value]
    many = [index for index in tried if (chain.hops[index].retries.value or 0) > 2]
    wrong = (
        ["two layers try again"]
        if len(tried) > 1 and len(seen.engine_starts) > max(1 + (chain.hops[each].retries.value or 0) for each in tried)
        else []
    )
    wrong += ["more than three tries"] if many and len(seen.engine_starts) > 3 else []
    return wrong + (["tries at the same moment"] if len(set(seen.engine_starts)) < len(seen.engine_starts) else [])


def _stopped(drain: Drain | None, longest: float, name: str) -> list[str]:
    """A pod that is told to stop right after its longest request began."""
    if drain is None:
        return []
    env, wrong = simpy.Environment(), []
    hook = env.timeout(longest if drain.waits_for_idle else (drain.pre_stop.value or 0.0))
    kill, request = env.timeout(drain.grace.value or 0.0), env.timeout(longest)

    def pod() -> Generator[simpy.Event, Any, None]:
        yield env.any_of([hook, kill, request])
        if not request.processed and not kill.processed and drain.aborts:
            yield env.any_of([env.timeout(drain.shutdown.value or 0.0), kill, request])
        elif not request.processed and not kill.processed:
            yield env.any_of([kill, request])
        if env.now < longest:
            wrong.append(f"{name} kills a request after {env.now:g} of {longest:g} s")

    def told() -> Generator[simpy.Event, Any, None]:
        yield env.any_of([hook, kill])
        if kill.processed and not drain.waits_for_idle:
            wrong.append(f"{name} is killed before it was told to stop")

    env.process(pod())
    env.process(told())
    env.run()
    if drain.pre_stop.value is None and REMOVAL_SECONDS > 0:
        wrong.append(f"{name} is sent requests after SIGTERM")
    return wrong
