"""The flow that compares MLflow's aliases with the ledger, each minute: it finds what a webhook missed and a crash left."""

from __future__ import annotations

from prefect import flow

from tasks.access_log import turn_over_access_log
from tasks.approve import approvals
from tasks.ledger import promoter
from tasks.reconcile import reconciler


@flow(name="reconcile", flow_run_name="reconcile {model}")
def reconcile(model: str = "") -> list[str]:
    """Finish what was begun, carry out or take back what was moved by hand; returns what was found, in words.

    Args:
        model: Name of the registered model. Empty: every model that the ledger knows.
    """
    turn_over_access_log()
    parts = promoter()
    checker = reconciler(parts)
    approvals(parts).expire()
    found = [one for name in ([model] if model else checker.models()) for one in checker.model(name)]
    return [f"{one.model}@{one.alias}: {one.done}: {one.reason}" for one in found]
