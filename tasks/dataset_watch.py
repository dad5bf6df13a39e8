"""A watched dataset: when its digest changes a release is asked for, once for each digest.

Three sources: the files that a release.yaml names, a dataset that runs log to MLflow, a revision on a hub. The digest that
is there at the first look is the baseline; it starts nothing. A digest is remembered in the transaction that sends the event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx

from tasks.dataset import read_dataset
from tasks.promotion import events
from tasks.promotion.database import Connect
from tasks.spec import load_release

EVENT = "liftlock.dataset.changed"
Done = Literal["baseline", "started", "unchanged"]


class DatasetUnknown(LookupError):
    """The watched dataset is not there."""


@dataclass(frozen=True)
class Watched:
    """`digest` names the content; `source` is what is watched."""

    model: str
    spec_file: str
    source: str
    digest: str


def in_files(spec_file: Path) -> Watched:
    """Raises SpecInvalid, DatasetRefused."""
    spec = load_release(spec_file)
    return Watched(spec.name, str(spec_file), "files", read_dataset(spec).revision)


def in_mlflow(spec_file: Path, name: str, client: Any) -> Watched:
    """The digest of that name in the newest run that logged it. Raises DatasetUnknown."""
    spec = load_release(spec_file)
    ids = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(ids, f"dataset.name = '{name}'", order_by=["attributes.start_time DESC"], max_results=1)
    found = [one.dataset.digest for run in runs for one in run.inputs.dataset_inputs if one.dataset.name == name]
    if not found:
        raise DatasetUnknown(f"MLflow has no run with the dataset {name!r}; log it with mlflow.log_input")
    return Watched(spec.name, str(spec_file), f"mlflow:{name}", str(found[0]))


def on_hub(spec_file: Path, repository: str, revision: str, endpoint: str | None = None) -> Watched:
    """The commit that `revision` stands for, with the token that huggingface_hub knows. Raises DatasetUnknown."""
    from huggingface_hub import constants, get_token

    spec, token = load_release(spec_file), get_token()
    url = (
        f"{(endpoint or constants.ENDPOINT).rstrip('/')}/api/datasets/{repository}/revision/{quote(revision, safe='')}"
    )
    try:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30)
        answer.raise_for_status()
        commit = str(answer.json()["sha"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise DatasetUnknown(f"{repository} at {revision}: {str(error).splitlines()[0]}") from None
    return Watched(spec.name, str(spec_file), f"hub:{repository}@{revision}", commit)


def look(connect: Connect, watched: Watched, send: Callable[[events.Event], None]) -> Done:
    """Raises EventNotSent: then the next look tries again."""
    with connect() as connection, connection.transaction():
        known = connection.execute(
            "SELECT 1 FROM dataset_seen WHERE model = %s AND source = %s LIMIT 1", [watched.model, watched.source]
        ).fetchone()
        added = connection.execute(
            "INSERT INTO dataset_seen (model, source, digest) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING digest",
            [watched.model, watched.source, watched.digest],
        ).fetchone()
        if added is None:
            return "unchanged"
        if known is None:
            return "baseline"
        payload = {
            "model": watched.model,
            "spec_file": watched.spec_file,
            "digest": watched.digest,
            "source": watched.source,
        }
        key = f"{watched.model} {watched.source} {watched.digest}"
        send(events.event(EVENT, watched.model, {"digest": watched.digest}, payload, key, events.now()))
        return "started"
