"""Who is told: Prefect's automations of deploy/prefect/notifications.yaml, with an address to send to."""

from __future__ import annotations

from typing import Any

import httpx

from tasks.plain_yaml import read_plain
from tasks.settings import ROOT

TEMPLATE = ROOT / "deploy" / "prefect" / "notifications.yaml"
BLOCK = "liftlock-notify"


def ensure_notifications(prefect_api: str, url: str) -> list[str]:
    """Idempotent: the names of the automations that now send to `url`. The process' Prefect must be at `prefect_api`."""
    from prefect.blocks.webhook import Webhook

    block = Webhook(method="POST", url=url).save(BLOCK, overwrite=True)
    wanted = read_plain(TEMPLATE.read_text()).value
    with httpx.Client(base_url=prefect_api, timeout=30) as client:
        for one in wanted:
            _ensure(client, _automation(one, str(block)))
    return [str(one["name"]) for one in wanted]


def _automation(one: dict[str, Any], block: str) -> dict[str, Any]:
    action = {"type": "call-webhook", "block_document_id": block, "payload": one["payload"]}
    return {**{key: one[key] for key in ("name", "description", "trigger")}, "enabled": True, "actions": [action]}


def _ensure(client: httpx.Client, automation: dict[str, Any]) -> None:
    found = client.post("/automations/filter", json={"automations": {"name": {"any_": [automation["name"]]}}})
    found.raise_for_status()
    known = found.json()
    answer = (
        client.put(f"/automations/{known[0]['id']}", json=automation)
        if known
        else client.post("/automations/", json=automation)
    )
    answer.raise_for_status()
