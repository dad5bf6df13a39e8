"""The eval gate on a change in Git, as a Prefect flow: what a webhook of a Git server starts through its deployment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from rich.console import Console

from evals.gate_markdown import to_markdown
from evals.gated import GatedChange, document
from tasks.asked import endpoint_of
from tasks.pull_request import Asked, ChangeRefused, gate_change
from tasks.retry import retry_condition
from tasks.settings import get_settings


@flow(name="pr_gate", flow_run_name="change {head}", log_prints=False, validate_parameters=True)
def pr_gate(
    repo: str, base: str, head: str, fork: bool = False, endpoint: str | None = None, model: str | None = None
) -> dict[str, Any]:
    """Gate the change from `base` to `head`; returns the JSON answer of `liftlock gate`. A no fails the run.

    Args:
        repo: Path of the Git repository on the worker.
        base: The branch that the change goes into.
        head: The change.
        fork: Take only data from the head, no code and no rule.
        endpoint: OpenAI endpoint, with /v1. Default: LIFTLOCK_VLLM_URL or the local stack's vLLM.
        model: Served model, where no adapter.yaml names one.
    """
    where = endpoint_of(get_settings(), endpoint, model, Console(file=sys.stderr))
    gated = _gate(Asked(Path(repo), base, head, fork, where))
    if gated.verdict != "passed":
        raise ChangeRefused(gated)
    return document(gated)


@task(name="gate_change", retries=1, retry_delay_seconds=5, retry_condition_fn=retry_condition, persist_result=False)
def _gate(asked: Asked) -> GatedChange:
    """Once more after a connection that broke; a verdict is final. The comment becomes an artifact."""
    gated = gate_change(asked)
    create_markdown_artifact(to_markdown(gated), key="liftlock-pr-gate", description=f"{asked.head}: {gated.verdict}")
    return gated
