"""Brings back what `liftlock export` wrote: versions with tags and evidence, ledger, aliases and reports. Effect.

Run twice it does nothing twice; killed, it goes on. MLflow gives runs new ids, so the old one is a tag. The ledger's chain is this
database's own: each line is appended with its number, time and hash of before among its evidence. Weights are not in an export.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from serving.modelcar import DigestMismatch, LayoutInvalid, verify_layout
from tasks.export_folder import Exported, ExportedVersion, ExportInvalid
from tasks.promotion import journal, ledger
from tasks.promotion.database import Connect, Connection, locked
from tasks.promotion.evidence import evidence_folder
from tasks.whole_file import write_whole

ORIGIN, MARK, WITNESS = "liftlock.imported_run", "liftlock.imported", "liftlock.ledger"
LINE, BATCH = "imported_line", 100


class ModelTaken(Exception):
    """MLflow has a model of this name that is not the exported one."""


@dataclass(frozen=True)
class Imported:
    """What was brought, counted, and what an export cannot bring, in words."""

    model: str
    versions: int
    ledger_lines: int
    aliases: dict[str, str]
    reports: int
    not_brought: tuple[str, ...]


def import_model(found: Exported, connect: Connect, state: Path) -> Imported:
    """Raises ModelTaken before anything is written; PromotionBusy, MlflowException, ExportInvalid."""
    client = mlflow.MlflowClient()
    there = _there(client, found)
    wanted = {alias: one.facts.version for one in found.versions for alias in one.facts.aliases}
    try:
        with locked(connect, found.name) as connection:  # the reconciler waits, and then finds that all agree
            made = _bring_versions(client, found, there)
            lines = _bring_ledger(connection, found)
            _bring_witnesses(client, found, ledger.lines(connection, found.name))
            moved = _bring_aliases(client, found.name, wanted)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise ExportInvalid(f"MLflow refuses what {found.folder} holds: {error.message[:300]}") from None
        raise
    left = _not_brought(found, state, made, moved)
    return Imported(found.name, made, lines, moved, _bring_reports(found, state), left)


def _there(client: mlflow.MlflowClient, found: Exported) -> dict[str, ModelVersion]:
    """Versions of the name that are in MLflow. Raises ModelTaken where one is not the exported one."""
    there = {str(one.version): one for one in client.search_model_versions(f"name = '{found.name}'")}
    known = {one.facts.version: one for one in found.versions}
    for number, one in sorted(there.items(), key=lambda pair: int(pair[0])):
        exported = known.get(number)
        same = exported is not None and exported.facts.run_id in (one.run_id, one.tags.get(ORIGIN))
        if not same:
            raise ModelTaken(
                f"MLflow has another {found.name} version {number} (run {one.run_id}), required: none, or the exported one. "
                "Import into an empty stack (LIFTLOCK_STATE), or delete that model in MLflow first. Nothing was changed"
            )
    return there


def _bring_versions(client: mlflow.MlflowClient, found: Exported, there: dict[str, ModelVersion]) -> int:
    try:
        client.create_registered_model(found.name, description="Released by Liftlock: candidate → staging → champion.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = 0
    for one in found.versions:
        if one.facts.version not in there:
            _bring_version(client, found, one)
            made += 1
    return made


def _bring_version(client: mlflow.MlflowClient, found: Exported, one: ExportedVersion) -> None:
    """Under its number: numbers that were deleted before the export are used up and deleted here too."""
    run = _bring_run(client, found, one)
    kept = {
        name: value for name, value in one.facts.tags.items() if name != WITNESS
    }  # it names a line of another ledger
    tags = {**kept, ORIGIN: one.facts.run_id, MARK: found.digest}
    while True:
        made = client.create_model_version(found.name, f"{run.info.artifact_uri}/adapter", run.info.run_id, tags=tags)
        if int(made.version) >= int(one.facts.version):
            break
        client.delete_model_version(found.name, made.version)
    if str(made.version) != one.facts.version:
        client.delete_model_version(found.name, made.version)
        raise ModelTaken(
            f"MLflow gave version {one.facts.version} of {found.name} away before; import into an empty stack"
        )


def _bring_run(client: mlflow.MlflowClient, found: Exported, one: ExportedVersion) -> Any:
    run = client.create_run("0", run_name=one.run.tags.get("mlflow.runName"))
    tags = {name: value for name, value in one.run.tags.items() if not name.startswith("mlflow.")}
    tags |= {ORIGIN: one.facts.run_id, MARK: found.digest}
    params = [Param(name, value) for name, value in one.run.params.items()]
    for begin in range(0, len(params), BATCH):
        client.log_batch(run.info.run_id, params=params[begin : begin + BATCH])
    metrics = [Metric(name, value, run.info.start_time, 0) for name, value in one.run.metrics.items()]
    for begin in range(0, len(metrics), BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[begin : begin + BATCH])
    client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for file in one.evidence:
        client.log_artifact(run.info.run_id, str(file), evidence_folder(one.facts.tags["liftlock.evidence"]))
    client.set_terminated(run.info.run_id)
    return run


def _bring_ledger(connection: Connection, found: Exported) -> int:
    have = {line.hash for line in ledger.lines(connection, found.name)}
    have |= {str(line.evidence.get(LINE)).partition(":")[2] for line in ledger.lines(connection, found.name)}
    missing = [line for line in found.ledger if line.hash not in have]
    with connection.transaction():
        for line in missing:
            origin = {LINE: f"{line.id}:{line.hash}", "imported_at": line.at}
            made = journal.note(connection, replace(line, evidence={**line.evidence, **origin}))
            journal.told(connection, made)
    return len(missing)


def _bring_witnesses(client: mlflow.MlflowClient, found: Exported, lines: list[ledger.Line]) -> None:
    """MLflow keeps the hash of the last line to each version, where a change of Postgres cannot reach it."""
    last = {line.to_version: f"{line.id}:{line.hash}" for line in lines}
    for one in client.search_model_versions(f"name = '{found.name}'"):
        said = last.get(str(one.version))
        if MARK in one.tags and said and one.tags.get(WITNESS) != said:
            client.set_model_version_tag(found.name, str(one.version), WITNESS, said)


def _bring_aliases(client: mlflow.MlflowClient, name: str, wanted: dict[str, str]) -> dict[str, str]:
    now = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    moved = {alias: version for alias, version in sorted(wanted.items()) if now.get(alias) != version}
    for alias, version in moved.items():
        client.set_registered_model_alias(name, alias, version)
    return moved


def _bring_reports(found: Exported, state: Path) -> int:
    count = 0
    for run_id, source in found.reports:
        home = state / "runs" / run_id
        if (home / "run.json").exists():
            continue
        home.mkdir(parents=True, exist_ok=True)
        document = json.loads((source / "run.json").read_text(encoding="utf-8"))
        if (source / "report.html").is_file():
            shutil.copyfile(source / "report.html", home / "report.html")
        write_whole(home / "run.json", json.dumps({**document, "report": str(home / "report.html")}, indent=2) + "\n")
        count += 1
    return count


def _not_brought(found: Exported, state: Path, made: int, moved: dict[str, str]) -> tuple[str, ...]:
    said = [f"the weights of {made} versions: an export holds none; their images do"] if made else []
    for reference in found.images:
        try:
            verify_layout(state / "modelcars", reference.rpartition("@")[2])
        except (OSError, DigestMismatch, LayoutInvalid, ValueError):
            said.append(
                f"the image {reference}: it is not in {state / 'modelcars'}; its registry has it by this digest"
            )
    if "champion" in moved:
        said.append(
            f"traffic: champion is version {moved['champion']} and not served; `liftlock serve {found.name}` serves it from its image"
        )
    return tuple(said)
