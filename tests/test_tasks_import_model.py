"""An export comes back as it went, once; what is half, changed, hostile or of another model is refused and nothing is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.exit_codes import code_of
from tasks.export import export
from tasks.export_folder import ExportInvalid, read_export
from tasks.import_model import ModelTaken, import_model
from tasks.promotion.database import connect
from tasks.promotion.evidence import keep_document
from tasks.promotion.ledger import GENESIS, Line, line_hash, lines, verify

KEY = "e" * 64
RUN = "20260101-000000-aaaa"


def chain(model: str) -> list[Line]:
    """Two of the model's lines as they were in a ledger that other models wrote in too."""
    found, previous = [], "f" * 64
    for number, before, after in ((3, None, "2"), (7, "2", "4")):
        line = Line(
            number,
            f"2026-01-0{number}T00:00:00.000000+00:00",
            model,
            "champion",
            "move",
            before,
            after,
            "ann",
            "größer",
            {"a": "1"},
            previous,
        )
        found.append(replace(line, hash=line_hash(line)))
        previous = "0" * 64
    return found


@pytest.fixture
def folder(registered: str, mlflow_client: MlflowClient, tmp_path: Path) -> Path:
    """Of a model whose version 3 was deleted, with evidence, an alias, a ledger and a report; then the model is deleted."""
    run = mlflow_client.get_model_version(registered, "4").run_id
    keep_document(mlflow_client, run, KEY, "decision.json", {"verdict": "passed"})
    tags = {"evidence": KEY, "modelcar": "r/m@sha256:" + "1" * 64, "ledger": "7:" + "9" * 64}
    for tag, value in tags.items():
        mlflow_client.set_model_version_tag(registered, "4", f"liftlock.{tag}", value)
    mlflow_client.set_registered_model_alias(registered, "champion", "4")
    mlflow_client.log_metric(run, "loss", 0.5)
    mlflow_client.log_param(run, "rank", 8)
    mlflow_client.delete_model_version(registered, "3")
    home = tmp_path / "old" / "runs" / RUN
    home.mkdir(parents=True)
    (home / "report.html").write_text("<h1>report</h1>")
    document = {"run_id": RUN, "name": registered, "verdict": "champion", "report": str(home / "report.html")}
    (home / "run.json").write_text(json.dumps(document))
    export(registered, tmp_path / "out", chain(registered), tmp_path / "old")
    return tmp_path / "out"


@pytest.fixture
def gone(folder: Path, registered: str, mlflow_client: MlflowClient) -> str:
    mlflow_client.delete_registered_model(registered)
    return registered


def summed(folder: Path) -> None:
    """As somebody who changes an export would write its sums again."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    rows = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.relative_to(folder).as_posix()}\n" for one in files]
    (folder / "SHA256SUMS").write_text("".join(rows))


def test_it_comes_back_under_its_numbers_with_evidence_ledger_and_report(
    folder: Path, gone: str, mlflow_client: MlflowClient, database: str, tmp_path: Path
) -> None:
    state = tmp_path / "new"
    done = import_model(read_export(folder), partial(connect, database), state)
    assert (done.versions, done.ledger_lines, done.aliases, done.reports) == (3, 2, {"champion": "4"}, 1)
    assert {one.version for one in mlflow_client.search_model_versions(f"name = '{gone}'")} == {"1", "2", "4"}
    version = mlflow_client.get_model_version_by_alias(gone, "champion")
    run = mlflow_client.get_run(version.run_id)
    assert (run.data.metrics, run.data.params) == ({"loss": 0.5}, {"rank": "8"})
    kept = mlflow_client.download_artifacts(version.run_id, f"evidence/{KEY[:12]}/decision.json", str(tmp_path))
    assert json.loads(Path(kept).read_text()) == {"verdict": "passed"}
    with connect(database) as connection:
        told = lines(connection, gone)
        count, faults = verify(connection, dict([_witness(version.tags["liftlock.ledger"])]))
    assert (count, faults) == (2, []) and told[0].previous == GENESIS
    assert [(line.from_version, line.to_version, line.reason) for line in told] == [
        (None, "2", "größer"),
        ("2", "4", "größer"),
    ]
    assert told[1].evidence["imported_line"] == f"7:{chain(gone)[1].hash}"
    assert Path(json.loads((state / "runs" / RUN / "run.json").read_text())["report"]).read_text() == "<h1>report</h1>"
    assert [said.split()[1] for said in done.not_brought] == ["weights", "image", "champion"]


def _witness(tag: str) -> tuple[int, str]:
    number, _, digest = tag.partition(":")
    return int(number), digest


def test_a_second_time_and_in_the_registry_it_came_from_it_does_nothing(
    folder: Path, registered: str, mlflow_client: MlflowClient, database: str, tmp_path: Path
) -> None:
    home = import_model(read_export(folder), partial(connect, database), tmp_path / "old")
    assert (home.versions, home.aliases, home.reports) == (0, {}, 0)
    mlflow_client.delete_registered_model(registered)
    for expected in (3, 0):
        done = import_model(read_export(folder), partial(connect, database), tmp_path / "old")
        assert (done.versions, done.ledger_lines) == (expected, 0)
    assert len(mlflow_client.search_model_versions(f"name = '{registered}'")) == 3


def test_one_that_was_cut_off_goes_on(
    folder: Path, gone: str, mlflow_client: MlflowClient, database: str, tmp_path: Path
) -> None:
    found = read_export(folder)
    import_model(
        replace(found, versions=found.versions[:1], ledger=found.ledger[:1]), partial(connect, database), tmp_path
    )
    done = import_model(found, partial(connect, database), tmp_path)
    assert (done.versions, done.ledger_lines) == (2, 1)


def test_another_model_of_the_name_is_left_alone(
    folder: Path, gone: str, mlflow_client: MlflowClient, database: str, tmp_path: Path
) -> None:
    mlflow_client.create_registered_model(gone)
    run = mlflow_client.create_run("0")
    mlflow_client.create_model_version(gone, f"{run.info.artifact_uri}/adapter", run.info.run_id)
    with pytest.raises(ModelTaken, match=r"another .* version 1 .*Nothing was changed"):
        import_model(read_export(folder), partial(connect, database), tmp_path / "new")
    assert len(mlflow_client.search_model_versions(f"name = '{gone}'")) == 1
    assert code_of(ModelTaken()) == code_of(ExportInvalid()) == 2


def _edit(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / file).write_text(json.dumps(change(json.loads((folder / file).read_text()))))
        summed(folder)

    return act


def _line(folder: Path) -> None:
    text = (folder / "ledger.jsonl").read_text()
    (folder / "ledger.jsonl").write_text(text.replace("ann", "eve"))
    summed(folder)


def _outside(folder: Path) -> None:
    (folder.parent / "secret").write_text("secret")
    with (folder / "SHA256SUMS").open("a") as out:
        out.write(f"{hashlib.sha256(b'secret').hexdigest()}  ../secret\n")


def _link(folder: Path) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "versions" / "4" / "evidence" / "x.json").symlink_to(folder.parent / "secret")
    summed(folder)


VERSION = "versions/4/version.json"


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: shutil.rmtree(folder),
        lambda folder: (folder / "SHA256SUMS").unlink(),
        lambda folder: (folder / "SHA256SUMS").write_text(""),
        lambda folder: (folder / "versions" / "4" / "run.json").unlink(),
        lambda folder: (folder / "versions" / "4" / "run.json").write_text("{}"),
        lambda folder: (folder / "more").write_text(""),
        _outside,
        _link,
        _line,
        _edit(VERSION, lambda facts: {**facts, "name": "../x"}),
        _edit(VERSION, lambda facts: {**facts, "version": "2"}),
        _edit(VERSION, lambda facts: {**facts, "tags": {**facts["tags"], "liftlock.evidence": "../../../x"}}),
        _edit(VERSION, lambda facts: {**facts, "aliases": ["../x"]}),
        _edit(VERSION, lambda facts: [facts]),
        _edit("images.json", lambda facts: [1]),
        _edit("versions/4/run.json", lambda facts: {"metrics": {"loss": "high"}}),
    ],
)
def test_what_is_half_changed_or_hostile_is_refused_in_one_sentence(folder: Path, act: Callable[[Path], None]) -> None:
    read_export(folder)
    act(folder)
    with pytest.raises(ExportInvalid) as refused:
        read_export(folder)
    assert len(str(refused.value)) < 700 and "secret" not in str(refused.value).replace("/secret", "")


def test_a_report_stays_in_its_folder(folder: Path) -> None:
    (folder / "reports" / "..x").mkdir()
    (folder / "reports" / "..x" / "run.json").write_text("{}")
    summed(folder)
    assert [run for run, _ in read_export(folder).reports] == [RUN]
