"""A model's export: plain files, whole, with sums and a ledger that anybody can check."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.exit_codes import code_of
from tasks.export import export
from tasks.manifest_files import OutputTaken
from tasks.promotion.evidence import keep_document
from tasks.promotion.ledger import GENESIS, Line, line_hash
from tasks.promotion.version_name import NoSuchVersion

KEY = "e" * 64


@pytest.fixture
def told(registered: str, mlflow_client: MlflowClient, tmp_path: Path) -> dict[str, Any]:
    """The second of the model's versions is champion, with evidence, an image and a finished release."""
    run = mlflow_client.get_model_version(registered, "2").run_id
    keep_document(mlflow_client, run, KEY, "decision.json", {"verdict": "passed"})
    for tag, value in (("evidence", KEY), ("modelcar", "r/m@sha256:" + "1" * 64), ("signature", "sha256:" + "2" * 64)):
        mlflow_client.set_model_version_tag(registered, "2", f"liftlock.{tag}", value)
    mlflow_client.set_registered_model_alias(registered, "champion", "2")
    mlflow_client.log_metric(run, "loss", 0.5)
    for run_id, verdict in (("20260101-000000-aaaa", "champion"), ("20260102-000000-bbbb", None)):
        folder = tmp_path / "state" / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "report.html").write_text("<h1>report</h1>")
        document = {"run_id": run_id, "name": registered, "verdict": verdict, "report": str(folder / "report.html")}
        (folder / "run.json").write_text(json.dumps(document))
    line = Line(
        1,
        "2026-01-01T00:00:00.000000+00:00",
        registered,
        "champion",
        "move",
        None,
        "2",
        "ann",
        "größer",
        {"a": "1"},
        GENESIS,
    )
    counts = export(registered, tmp_path / "out", [Line(**{**vars(line), "hash": line_hash(line)})], tmp_path / "state")
    return {"counts": counts, "folder": tmp_path / "out", "name": registered}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_every_version_has_its_facts_and_its_evidence(told: dict[str, Any]) -> None:
    folder = told["folder"]
    assert told["counts"] == {"model": told["name"], "versions": 4, "ledger_lines": 1, "images": 1, "reports": 1}
    version = read(folder, "versions/2/version.json")
    assert (version["aliases"], version["tags"]["liftlock.evidence"]) == (["champion"], KEY)
    assert read(folder, "versions/2/run.json")["metrics"] == {"loss": 0.5}
    assert read(folder, "versions/2/evidence/decision.json") == {"verdict": "passed"}
    assert not (folder / "versions" / "1" / "evidence").exists()
    assert read(folder, "images.json")["2"]["reference"].endswith("1" * 64)
    assert (folder / "reports" / "20260101-000000-aaaa" / "report.html").read_text() == "<h1>report</h1>"


def test_coreutils_find_a_changed_file_by_the_sums(told: dict[str, Any]) -> None:
    def check() -> int:
        return subprocess.run(
            ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=told["folder"], capture_output=True, check=False
        ).returncode

    assert check() == 0
    (told["folder"] / "versions" / "2" / "evidence" / "decision.json").write_text('{"verdict": "rejected"}')
    assert check() != 0


def test_the_ledgers_hash_can_be_computed_as_the_readme_says(told: dict[str, Any]) -> None:
    (line,) = [json.loads(row) for row in (told["folder"] / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    found = line.pop("hash")
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == found


def test_a_taken_folder_and_an_unknown_model_leave_nothing_behind(told: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OutputTaken, match="not empty"):
        export(told["name"], told["folder"], [], tmp_path / "state")
    with pytest.raises(NoSuchVersion, match="no version in MLflow"):
        export("nobody", tmp_path / "new", [], tmp_path / "state")
    assert code_of(OutputTaken()) == code_of(NoSuchVersion()) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"state", "out"}
