"""The flow between a candidate that was set by hand in MLflow and its promotion: the gate, against the champion of today."""

from __future__ import annotations

from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact

from tasks.gate_candidate import gate_version


@flow(name="gate", flow_run_name="{model} version {version}")
def gate_candidate(model: str, version: str) -> str:
    """Judge a registered version against the present champion; returns the deciding reason. A pass starts its promotion.

    Args:
        model: Name of the registered model in MLflow.
        version: Number of the version.
    """
    with tags(f"model:{model}", f"version:{version}"):
        decision = gate_version(model, version)
        create_markdown_artifact("\n".join(f"- {said}" for said in decision.reasons), key="liftlock-gate")
        return decision.reasons[0]
