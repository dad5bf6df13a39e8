"""Names and tags of a Prefect flow run, so that its page can be searched by model, version and run."""

from __future__ import annotations

from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client


def label_flow_run(name: str, *labels: str) -> None:
    """Of the flow run that this is in; nothing outside of one."""
    flow_run = runtime.flow_run.id
    if flow_run is None:
        return
    with get_client(sync_client=True) as client:
        known = set(client.read_flow_run(UUID(flow_run)).tags)
        client.update_flow_run(UUID(flow_run), name=name, tags=sorted(known | set(labels)))
