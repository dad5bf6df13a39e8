"""The flow behind a rollback that is asked for in Prefect's page. `liftlock rollback` does the same without Prefect."""

from __future__ import annotations

from prefect import flow, tags

from tasks.rollback import roll_back


@flow(name="rollback", flow_run_name="{model} back")
def rollback(model: str, to: str | None = None, reason: str = "", actor: str = "prefect") -> str:
    """Give the traffic and the alias champion back to an earlier version; returns its number.

    Args:
        model: Name of the registered model in MLflow.
        to: The version to go back to. Empty: the champion before the present one.
        reason: Written into the ledger.
        actor: Who asks for it; written into the ledger.
    """
    with tags(f"model:{model}"):
        return roll_back(model, to, reason=reason, actor=actor).to_version
