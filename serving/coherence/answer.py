"""Per alias and client: the longest answer that comes through, and the first thing to cut it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.coherence.duration import shown
from serving.coherence.model import Chain, Setting, least
from serving.coherence.rules_time import tokens_in
from serving.coherence.worst import amplification, silent_seconds


@dataclass(frozen=True)
class Answer:
    """`tokens` and `rate` are None where nobody gave the engine's figures. Times in seconds; inf: for ever."""

    alias: str
    client: str
    tokens: int | None
    rate: float | None
    cut_by: str
    cut_at: Setting
    worst_seconds: float
    worst_tries: int

    def sentence(self) -> str:
        limit = (
            "nothing cuts it"
            if self.cut_at.value is None
            else f"the first thing to cut it is {self.cut_by} at {self.cut_at}"
        )
        if self.tokens is None or self.rate is None:
            time = "has no limit" if self.cut_at.value is None else f"takes {shown(self.cut_at.value)}"
            return f"the longest answer that can come through {time}; {limit}"
        return (
            f"the longest answer that can come through is {self.tokens:,} tokens at {self.rate:,.0f} tokens/s; {limit}"
        )


def answer(chain: Chain) -> Answer:
    """Of a stream where the client streams, else of a whole answer."""
    streaming = chain.modes[0]
    found = []
    for hop in chain.hops:
        limits = hop.limits(streaming)
        found.append((limits.longest() if streaming else least(limits.longest(), limits.idle, limits.first), hop.name))
    at, by = min(found, key=lambda each: math.inf if each[0].value is None else each[0].value)
    engine, tokens, rate = chain.engine, None, None
    if engine.inter_token and engine.first_token is not None:
        rate = 1 / engine.inter_token
        fits = math.inf if at.value is None else tokens_in(chain, at.value)
        most = min(fits, engine.tokens or math.inf)
        tokens = None if math.isinf(most) else int(most)
    if tokens is not None and engine.tokens is not None and tokens == engine.tokens:
        at, by = Setting(None, "the engine's own limit on tokens"), engine.name
    return Answer(
        chain.alias,
        chain.client,
        tokens,
        rate,
        by,
        at,
        silent_seconds(chain.hops, streaming),
        amplification(chain.hops),
    )
