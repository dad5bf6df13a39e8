"""What MLflow's webhook says, and whether it may be believed: signature, time, form. Pure; receive.py does the rest."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

TOLERANCE_SECONDS = 300  # a delivery that was signed longer ago, or further ahead, is refused
MAX_BYTES = 65536
ENTITY = "model_version_alias"


class WebhookRefused(Exception):
    """A delivery that is not acted upon; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Delivery:
    """An alias that was set to `version`, or deleted (None). `id` is the same in every try of one delivery."""

    id: str
    model: str
    alias: str
    version: str | None


def signature(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """As MLflow signs: HMAC-SHA256 over `id.timestamp.body`, in base64 behind the scheme's version."""
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def read_delivery(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    """Nothing of the body is looked at before the signature and the time are right. Raises WebhookRefused."""
    lower = {name.lower(): value for name, value in headers.items()}
    delivery, timestamp, said = (
        lower.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature")
    )
    wanted = signature(secret, delivery, timestamp, body)
    if not delivery or not hmac.compare_digest(wanted.encode(), said.encode("utf-8", "replace")):
        observed = "a wrong one" if said else "none"
        raise WebhookRefused(401, f"signature: {observed}, required one with this stack's secret; run `liftlock up`")
    if not timestamp.isascii() or not timestamp.isdecimal() or abs(now - int(timestamp[:15])) > TOLERANCE_SECONDS:
        raise WebhookRefused(401, f"timestamp: {timestamp!r:.40}, required within {TOLERANCE_SECONDS} s of {int(now)}")
    return _parse(delivery, body)


def _parse(delivery: str, body: bytes) -> Delivery:
    try:
        document = json.loads(body)
        entity, action, data = document["entity"], document["action"], document["data"]
        if entity != ENTITY or action not in ("created", "deleted"):
            raise WebhookRefused(422, f"event: {entity}.{action}, required {ENTITY}.created or {ENTITY}.deleted")
        version = _text(data["version"]) if action == "created" else None
        return Delivery(delivery, _text(data["name"]), _text(data["alias"]), version)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WebhookRefused(422, "body: not the JSON of an MLflow alias event") from None


def _text(value: object) -> str:
    """What a database takes: ValueError for half a surrogate pair and for NUL."""
    text = str(value)
    if b"\0" in text.encode():
        raise ValueError("NUL")
    return text
