"""From one number, the client's budget, to values that nest: smallest change first. Pure, on an inventory that it may change.

From the outside in: what is written and fits stays; what does not is set to the most that fits. Then retries at one layer, then, on the chains
as they are after that, drains and starts. What no manifest can hold stays as a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from serving.coherence.duration import shown
from serving.coherence.findings import Finding
from serving.coherence.model import Chain, Hop, Patch, Setting
from serving.coherence.objects import InputInvalid
from serving.coherence.rules_retries import MOST_RETRIES
from serving.coherence.rules_time import waits

REMOVE = math.nan  # take the block out
IDLE_WAIT = math.inf  # a preStop hook that waits until nothing runs
SLACK_SECONDS = 30  # of a pod's grace beyond its longest request


@dataclass
class Changes:
    """Patch → value; of two values for one place the smaller stays, unless it is a lower bound."""

    values: dict[Patch, float] = field(default_factory=dict)

    def at_most(self, patch: Patch | None, value: float) -> None:
        if patch is not None:
            self.values[patch] = min(self.values.get(patch, math.inf), value)

    def at_least(self, patch: Patch | None, value: float) -> None:
        if patch is not None:
            self.values[patch] = max(self.values.get(patch, 0.0), value)


def margin(budget: float) -> float:
    return max(1.0, math.floor(budget * 0.05))


def budget_of(chains: Sequence[Chain]) -> float:
    """The tightest client that no manifest can change; else the most patient one."""
    limits = [(waits(chain.hops[0].limits(mode)), chain) for chain in chains for mode in chain.modes]
    fixed = [at.value for at, _ in limits if at.value is not None and at.patch is None]
    known = [at.value for at, _ in limits if at.value is not None]
    if not known:
        raise InputInvalid("no client has a limit, so there is no budget to start from; give --budget 600s")
    return min(fixed) if fixed else max(known)


def times(chains: Sequence[Chain], budget: float) -> Changes:
    """Limits and retries. Raises InputInvalid where the budget cannot hold the engine's longest answer."""
    made, step = Changes(), margin(budget)
    clients_try = any(chain.hops[0].retries.value for chain in chains)
    for chain in chains:
        fixed = [
            at.value
            for mode in chain.modes
            if (at := waits(chain.hops[0].limits(mode))).value is not None and at.patch is None
        ]
        if fixed and min(fixed) < budget:
            raise InputInvalid(
                f"{chain.client} waits {shown(min(fixed))}, less than the budget of {shown(budget)}; give --budget {min(fixed):g}s"
            )
        _client(made, chain.hops[0], budget)
        _inner(made, chain, budget - step, step, clients_try)
    return made


def _client(made: Changes, hop: Hop, budget: float) -> None:
    for limits in (hop.streaming, hop.whole):
        at = waits(limits)
        if at.value is not None and at.value < budget:
            made.at_least(at.patch, budget)


def _inner(made: Changes, chain: Chain, cap: float, step: float, clients_try: bool) -> None:
    tried = clients_try
    for hop in chain.hops[1:]:
        retries = int(hop.retries.value or 0)
        if tried and retries and hop.retries.patch is not None:
            made.values[hop.retries.patch] = 0.0 if hop.kind == "router" else REMOVE
            retries = 0
        fits = _retries(hop, cap, step, chain.engine.bound or 0.0, retries) if hop.kind == "router" else retries
        if fits < retries and hop.retries.patch is not None:
            made.at_most(hop.retries.patch, fits)
            retries = fits
        tried = tried or bool(retries)
        cap = (
            _router(made, hop, cap, step, retries, chain)
            if hop.kind == "router"
            else _route(made, hop, cap, step, chain)
        )
        if chain.engine.bound is not None and cap <= chain.engine.bound:
            need = chain.engine.bound * (retries + 1) + step * (len(chain.hops) + 1)
            raise InputInvalid(
                f"{chain.alias}: the longest answer takes {shown(chain.engine.bound)} and the budget leaves {shown(cap)} at {hop.name}; "
                f"give --budget of about {need:.0f}s, or lower max_tokens"
            )


def _retries(hop: Hop, cap: float, step: float, bound: float, retries: int) -> int:
    """As many as leave each try room for the longest answer."""
    fits = min(retries, MOST_RETRIES)
    while fits and (cap - hop.backoff[1]) / (fits + 1) - step <= bound:
        fits -= 1
    return fits


def _router(made: Changes, hop: Hop, cap: float, step: float, retries: int, chain: Chain) -> float:
    """What is left for the hop behind. A timeout that would end the longest answer is raised to the most that fits."""
    backoff = replace(hop, retries=Setting(retries, "planned")).waits()
    most = math.floor((cap - backoff) / (retries + 1))
    at = waits(hop.whole)
    if at.value is None or at.value > most or at.implicit or at.value <= (chain.engine.bound or 0.0):
        made.at_most(at.patch, most)
        return most - step
    return at.value - step


def _route(made: Changes, hop: Hop, cap: float, step: float, chain: Chain) -> float:
    total = hop.whole.total
    needed = chain.engine.bound or 0.0
    if total.value is None:
        return cap
    if total.value > cap or total.value <= needed or total.implicit or _inside(hop, chain, total.value):
        made.at_most(total.patch, math.floor(cap))
        total = Setting(math.floor(cap), "planned")
    for part in (hop.whole.attempt, hop.whole.first):
        if part.value is not None and part is not hop.whole.total and part.value > (total.value or 0.0):
            made.at_most(part.patch, total.value or 0.0)
    return (total.value or cap) - step


def _inside(hop: Hop, chain: Chain, value: float) -> bool:
    """A route with a router behind it needs room for all of the router's tries: it is set to the most that fits."""
    behind = chain.hops[chain.hops.index(hop) + 1 :]
    return any(
        each.kind == "router" and (each.whole.patience().value or math.inf) * (1 + (each.retries.value or 0)) >= value
        for each in behind
    )


def rest(findings: Sequence[Finding]) -> Changes:
    """Drains, starts, first chunks, cooldowns and cancellation, by what each finding needs."""
    made = Changes()
    for each in findings:
        patch = each.at.patch
        if each.rule == "drain-short":
            made.at_least(patch, math.ceil(each.need) + SLACK_SECONDS)
        elif each.rule == "no-pre-stop" and patch is not None:
            made.values[patch] = IDLE_WAIT if patch.target != "litellm-values" else 10.0
        elif each.rule in ("startup-short", "progress-short", "cooldown-short", "liveness-short", "stream-first-chunk"):
            made.at_least(patch, math.ceil(each.need * 1.25) + 1)
        elif each.rule == "cancel-lost":
            made.at_least(patch, 1)
    return made


def aborts(chains: Sequence[Chain]) -> Changes:
    """A hook that waits, for pods that end requests when they are told to stop."""
    made = Changes()
    for chain in chains:
        drain = chain.engine.drain
        if drain and drain.aborts and not drain.waits_for_idle and drain.pre_stop.patch is not None:
            made.values[drain.pre_stop.patch] = IDLE_WAIT
    return made
