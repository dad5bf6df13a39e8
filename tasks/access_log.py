"""Keeps the gateway's access log from growing without end. The flow `reconcile` calls it each minute."""

from __future__ import annotations

import httpx

from serving.gateway.rotation import rotate
from tasks.settings import get_settings
from tasks.stack.addresses import addresses


def turn_over_access_log() -> bool:
    """Whether it was turned over; not while Envoy is down, and then it writes nothing either."""
    settings = get_settings()
    try:
        return rotate(settings.state / "gateway" / "access.log", addresses(settings).gateway_admin)
    except httpx.HTTPError:
        return False
