"""Further servers behind the gateway, as the settings name them."""

from __future__ import annotations

from serving.gateway.model import Endpoint, endpoint_of
from tasks.settings import Settings
from tasks.stack.addresses import Addresses
from tasks.stack.engine import Engine


class EndpointInvalid(Exception):
    """LIFTLOCK_FALLBACK or LIFTLOCK_ENDPOINTS names no server."""


def endpoints_of(text: str) -> tuple[Endpoint, ...]:
    """From MODEL@http://host:port, separated by commas. Raises EndpointInvalid."""
    try:
        return tuple(endpoint_of(one) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise EndpointInvalid(f"{error}; see LIFTLOCK_FALLBACK and LIFTLOCK_ENDPOINTS") from None


def fallback_of(settings: Settings, where: Addresses, engine: Engine) -> tuple[Endpoint, ...]:
    """`base` in LIFTLOCK_FALLBACK is the base model on the engine itself. Raises EndpointInvalid."""
    base = f"{engine.served_name}@{where.vllm}"
    named = (base if one.strip() == "base" else one for one in (settings.fallback or "").split(","))
    return endpoints_of(",".join(named))
