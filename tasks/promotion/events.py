"""Events for Prefect: one a line of the ledger, with an id made from the line's hash, so that telling twice is telling once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from tasks.promotion.ledger import Line

NAMESPACE = uuid.UUID("5b2f1c0e-3a54-4f0e-9a55-7a1d6f0f2f6b")
NAMES = {
    "move": "liftlock.alias.moved", "rollback": "liftlock.alias.rolled-back", "put_back": "liftlock.alias.put-back",
    "removed": "liftlock.alias.removed", "refused": "liftlock.promotion.refused", "approved": "liftlock.approval.given",
    "approval_requested": "liftlock.approval.requested", "denied": "liftlock.approval.denied",
    "approval_expired": "liftlock.approval.expired",
}  # fmt: skip
Event = dict[str, Any]


class EventNotSent(Exception):
    """Prefect did not take the event; it can be sent again later."""


def event(name: str, model: str, labels: Mapping[str, str], payload: Mapping[str, Any], key: str, at: str) -> Event:
    """Prefect's event document. Triggers match on the labels; the same `key` gives the same id."""
    resource = {
        "prefect.resource.id": f"liftlock.model.{model}",
        "prefect.resource.name": model,
        "liftlock.model": model,
        **{f"liftlock.{label}": value for label, value in labels.items()},
    }
    identity = str(uuid.uuid5(NAMESPACE, key))
    return {
        "id": identity,
        "occurred": at,
        "event": name,
        "resource": resource,
        "related": [],
        "payload": dict(payload),
    }


def event_of(line: Line) -> Event:
    """What triggers can match: the name, and the labels model, alias, version, actor."""
    version = line.to_version or ""
    payload = {
        "model": line.model, "alias": line.alias, "version": version, "from_version": line.from_version or "",
        "actor": line.actor, "reason": line.reason, "evidence": dict(line.evidence), "line": line.id, "hash": line.hash,
    }  # fmt: skip
    labels = {"alias": line.alias, "version": version, "actor": line.actor}
    return event(NAMES[line.kind], line.model, labels, payload, f"{line.hash}", line.at)


def now() -> str:
    return datetime.now(UTC).isoformat()


class PrefectEvents:
    """Sends to Prefect's API at `url` (with /api), once and with a time limit of `timeout` seconds."""

    def __init__(self, url: str, timeout: float = 5) -> None:
        self._url, self._timeout = url, timeout

    def __call__(self, line: Line) -> None:
        self.send(event_of(line))

    def send(self, document: Event) -> None:
        """Raises EventNotSent."""
        try:
            answer = httpx.post(f"{self._url}/events", json=[document], timeout=self._timeout)
        except httpx.HTTPError as error:
            raise EventNotSent(f"Prefect at {self._url} did not take the event: {error}") from None
        if answer.status_code not in (200, 204):
            raise EventNotSent(f"Prefect at {self._url} answered the event with status {answer.status_code}")
