"""The flow behind `liftlock promote` and behind an alias that was set by hand in MLflow."""

from __future__ import annotations

from typing import Literal

from prefect import flow, tags

from tasks.promote import promote_version


@flow(name="promote", flow_run_name="{model} version {version} to {to}")
def promote(
    model: str,
    version: str,
    to: Literal["staging", "champion"] = "champion",
    expected: str | None = None,
    reason: str = "",
    actor: str = "prefect",
) -> str:
    """Promote a registered version on the evidence that its release left; returns the alias' new version.

    Args:
        model: Name of the registered model in MLflow.
        version: Number of the version.
        to: The alias. champion goes through a canary.
        expected: The version that the alias names now; the promotion stops where it does not. Empty: wherever it is.
        reason: Written into the ledger.
        actor: Who asks for it; written into the ledger.
    """
    with tags(f"model:{model}", f"version:{version}"):
        said = reason or "asked for in Prefect"
        return promote_version(model, version, to, expected=expected, reason=said, actor=actor).to_version
