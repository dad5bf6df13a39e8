"""Tells the local MLflow to report aliases that are set or deleted to the part `watch`."""

from __future__ import annotations

import httpx

NAME = "liftlock"
EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]


def ensure_webhook(mlflow: str, url: str, secret: str) -> None:
    """Idempotent: the webhook of our name gets this address and this secret. Raises httpx.HTTPError."""
    wanted = {"name": NAME, "url": url, "events": EVENTS, "secret": secret, "status": "ACTIVE"}
    hooks = f"{mlflow}/api/2.0/mlflow/webhooks"
    with httpx.Client(timeout=30) as client:
        answer = client.get(hooks, params={"max_results": 100})
        answer.raise_for_status()
        known = [one["webhook_id"] for one in answer.json().get("webhooks", []) if one["name"] == NAME]
        answer = client.patch(f"{hooks}/{known[0]}", json=wanted) if known else client.post(hooks, json=wanted)
        answer.raise_for_status()
