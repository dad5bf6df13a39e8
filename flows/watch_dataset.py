"""Looks at a dataset on a schedule; a new digest starts the deployment `release` by an event, once."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from tasks.dataset_watch import in_files, in_mlflow, look, on_hub
from tasks.ledger import event_sender, ledger_database


@flow(name="watch_dataset", flow_run_name="{spec_file}", log_prints=False, validate_parameters=True)
def watch_dataset(
    spec_file: str, mlflow_dataset: str | None = None, hub: str | None = None, revision: str = "main"
) -> str:
    """Ask for a release where the dataset has a digest that was not seen before; returns what was done.

    Args:
        spec_file: The release.yaml to release with. Alone, the files that it names are watched.
        mlflow_dataset: Watch the dataset of this name in MLflow's runs instead.
        hub: Watch this dataset repository on the hub instead.
        revision: Branch or tag on the hub.
    """
    path = Path(spec_file)
    if mlflow_dataset:
        import mlflow

        watched = in_mlflow(path, mlflow_dataset, mlflow.MlflowClient())
    else:
        watched = on_hub(path, hub, revision) if hub else in_files(path)
    return look(ledger_database(), watched, event_sender())
