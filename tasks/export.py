"""Everything about a model as files that need no Liftlock to read: ledger, versions, evidence, reports, images by digest. Effect.

The folder appears whole or not at all. SHA256SUMS covers every file, in the form that `sha256sum --check` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion

from tasks.manifest_files import OutputTaken
from tasks.promotion.evidence import evidence_folder
from tasks.promotion.ledger import Line
from tasks.promotion.version_name import NoSuchVersion
from tasks.run import documents_of

README = """\
# {name}: everything that Liftlock knows about it

Plain files; nothing here needs Liftlock. `sha256sum --check SHA256SUMS` says whether they are whole.

- `ledger.jsonl`: every move of an alias, oldest first, one JSON object a line. `hash` is the sha256 of the canonical JSON (sorted
  keys, no blanks, UTF-8) of all other keys. `previous` is the hash of the line before; lines of other models stand in between.
- `versions/N/version.json`: MLflow's model version N with its aliases and tags; the tags `liftlock.*` name the evidence by digest.
- `versions/N/run.json`: parameters, metrics and tags of the MLflow run that trained it.
- `versions/N/evidence/`: the documents that its promotion rests on (eval reports by item, decision, fit report, rollout).
- `images.json`: the version's OCI image by digest; `cosign verify` or `liftlock modelcar verify` checks its signature.
- `reports/`: report.html and run.json of the releases that are still in the state folder.
"""


def export(name: str, output: Path, ledger: Sequence[Line], state: Path) -> dict[str, Any]:
    """Write `output`/, with the model's lines of the ledger and the reports below `state`; returns the counts.

    Raises OutputTaken, NoSuchVersion, MlflowException.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputTaken(f"{output} is there and not empty; name a new folder")
    client = mlflow.MlflowClient()
    versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda one: int(one.version))
    if not versions:
        raise NoSuchVersion(f"{name!r} has no version in MLflow; `liftlock release SPEC` makes the first")
    partial = output.absolute().with_name(f".{output.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        counts = _fill(partial, name, client, versions, ledger)
        counts["reports"] = _reports(partial / "reports", name, state)
        _sums(partial)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _fill(
    folder: Path, name: str, client: mlflow.MlflowClient, versions: list[ModelVersion], ledger: Sequence[Line]
) -> dict[str, Any]:
    (folder / "README.md").write_text(README.format(name=name))
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(asdict(line), sort_keys=True)}\n" for line in ledger))
    images = {}
    for one in versions:
        full = client.get_model_version(name, one.version)  # a search tells no aliases
        _version(folder / "versions" / str(full.version), client, full)
        if reference := full.tags.get("liftlock.modelcar"):
            images[str(full.version)] = {
                "reference": reference, "signature_payload_digest": full.tags.get("liftlock.signature"),
            }  # fmt: skip
    _write(folder / "images.json", images)
    return {
        "model": name,
        "versions": len(versions),
        "ledger_lines": len(ledger),
        "images": len(images),
    }


def _version(folder: Path, client: mlflow.MlflowClient, one: ModelVersion) -> None:
    folder.mkdir(parents=True)
    facts = {
        "name": one.name, "version": str(one.version), "aliases": sorted(one.aliases), "tags": dict(one.tags),
        "run_id": one.run_id, "source": one.source, "created": one.creation_timestamp,
    }  # fmt: skip
    _write(folder / "version.json", facts)
    run = client.get_run(one.run_id)
    told = {"params": dict(run.data.params), "metrics": dict(run.data.metrics), "tags": dict(run.data.tags)}
    _write(folder / "run.json", told)
    key = one.tags.get("liftlock.evidence")
    if key and client.list_artifacts(one.run_id, evidence_folder(key)):
        found = Path(client.download_artifacts(one.run_id, evidence_folder(key), str(folder)))
        shutil.move(found, folder / "kept")
        shutil.rmtree(folder / "evidence", ignore_errors=True)
        (folder / "kept").rename(folder / "evidence")


def _reports(folder: Path, name: str, state: Path) -> int:
    found = documents_of(state, name)
    for document in found:
        kept = folder / str(document["run_id"])
        kept.mkdir(parents=True)
        _write(kept / "run.json", document)
        if (report := Path(document.get("report") or "")).is_file():
            shutil.copyfile(report, kept / "report.html")
    return len(found)


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def _sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in files
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))
