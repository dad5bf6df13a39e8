"""Waiting until sides of a split have no request left, among them those that were begun before the last change of the routes and
are not sent on yet.

Envoy routes a request by the routes that held when its headers came. A body that is still on its way, or a retry that waits,
so goes to a side that gets no new requests any more; and an engine that is stopped or an adapter that is removed meanwhile is
a request lost. Effect: reads the gateway's counters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from serving.gateway.envoy import cluster_of
from serving.gateway.listener import BEGUN
from serving.gateway.state import Gateway

LOOK_SECONDS = 0.1
STILL_SECONDS = 0.5  # Envoy's workers take new routes up a little later than the thread that confirms them
ACTIVE, PENDING, TOTAL = "upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_total"
Side = tuple[str, str, str | None]  # model, "stable" or "candidate", its engine's address where it has one of its own


@dataclass(frozen=True)
class Seen:
    """`running` and `sent` are of the sides; `unsent` requests of any model have no engine yet."""

    running: int
    sent: int
    unsent: int


def drained(gateway: Gateway, sides: Sequence[Side], seconds: float) -> bool:
    """At most `seconds`; says whether they all ended. Where bodies of other requests keep coming, as long as one of before the
    change may take to arrive. Raises httpx.HTTPError.
    """
    began = still = time.monotonic()
    sent, all_sent = -1, False
    while True:
        seen, now = _look(gateway, sides), time.monotonic()
        all_sent = all_sent or seen.unsent <= 0 or now - began > gateway.limits.receive_seconds
        if seen.running or seen.sent != sent or not all_sent:
            still, sent = now, seen.sent
        elif now - still >= STILL_SECONDS:
            return True
        if now - began > seconds:
            return False
        time.sleep(LOOK_SECONDS)


def _look(gateway: Gateway, sides: Sequence[Side]) -> Seen:
    found = gateway.stats(rf"^({BEGUN}|cluster\..+\.({ACTIVE}|{PENDING}|{TOTAL}))$".replace("http.", r"http\."))
    clusters = [f"cluster.{cluster_of(*side)}" for side in sides]
    under_way = sum(
        count for name, count in found.items() if name.endswith((ACTIVE, PENDING)) and "-mirror" not in name
    )
    running = sum(found.get(f"{one}.{name}", 0) for one in clusters for name in (ACTIVE, PENDING))
    return Seen(running, sum(found.get(f"{one}.{TOTAL}", 0) for one in clusters), found.get(BEGUN, 0) - under_way)
