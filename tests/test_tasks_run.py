"""A run's folder, its record on disk, and which run `--resume` and `--json` find."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import StageRecord
from tasks.run import Run, current_run, read_document, start_run, unfinished

SPEC = Path("evals/tickets/release.yaml")
TRAIN = StageRecord("train", "done", 12.34, False, "a" * 64, "loss 0.5, 10 % [of] steps")


def begin(state: Path, name: str = "tickets", *, resume: bool = False, fresh: bool = False, quiet: bool = False) -> Run:
    return start_run(state, SPEC, name, resume=resume, fresh=fresh, quiet=quiet)


def document(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.folder / "run.json").read_text()))


def test_a_new_run_is_on_record_at_once(tmp_path: Path) -> None:
    run = begin(tmp_path)
    found = document(run)
    assert current_run() is run
    assert run.folder == tmp_path / "runs" / run.run_id
    assert (found["run_id"], found["name"], found["spec"], found["pid"]) == (
        run.run_id,
        "tickets",
        str(SPEC),
        os.getpid(),
    )
    assert (found["verdict"], found["stages"]) == (None, [])


def test_stages_are_recorded_as_they_end(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.add(TRAIN)
    run.add(replace(TRAIN, name="evaluate", status="failed"))
    run.add(replace(TRAIN, name="evaluate", cached=True))  # a second try takes the place of the first
    assert [(one["name"], one["status"], one["cached"]) for one in document(run)["stages"]] == [
        ("train", "done", False),
        ("evaluate", "done", True),
    ]
    assert StageRecord(**document(run)["stages"][0]) == TRAIN
    assert document(run)["verdict"] is None
    run.record(verdict="champion", exit_code=0, report=Path("report.html"))
    found = document(run)
    assert (found["verdict"], found["exit_code"], found["report"], len(found["stages"])) == (
        "champion",
        0,
        "report.html",
        2,
    )
    assert [file.name for file in run.folder.iterdir()] == ["run.json"]


def test_a_line_a_stage_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path)
    run.begin("train")
    run.add(TRAIN)
    run.add(replace(TRAIN, cached=True, note="x" * 300))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "✓ train                   12.3 s  loss 0.5, 10 % [of] steps",
        "✓ train           from the cache  " + "x" * 300,
    ]


def test_a_quiet_run_says_nothing_and_records_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path, quiet=True)
    run.add(TRAIN)
    assert capsys.readouterr() == ("", "")
    assert len(document(run)["stages"]) == 1


def test_resume_goes_on_with_the_newest_unfinished_run_of_the_model(tmp_path: Path) -> None:
    write(tmp_path, "20260101-000000-aaaa", "tickets", None)
    write(tmp_path, "20260102-000000-bbbb", "tickets", None)
    write(tmp_path, "20260103-000000-cccc", "tickets", "champion")
    write(tmp_path, "20260104-000000-dddd", "another", None)
    (tmp_path / "runs" / "20260105-000000-eeee").mkdir()  # killed before its first record
    assert unfinished(tmp_path, "tickets") == "20260102-000000-bbbb"
    run = begin(tmp_path, resume=True)
    assert (run.run_id, run.stages) == ("20260102-000000-bbbb", [])
    run.record(verdict="rejected")
    assert unfinished(tmp_path, "tickets") == "20260101-000000-aaaa"


def test_without_resume_or_anything_to_resume_a_run_is_new(tmp_path: Path) -> None:
    assert unfinished(tmp_path, "tickets") is None
    first = begin(tmp_path, resume=True)
    second = begin(tmp_path)
    assert first.run_id != second.run_id
    assert (first.fresh, begin(tmp_path, fresh=True).fresh) == (False, True)


def test_the_document_of_a_process_and_spec_is_found(tmp_path: Path) -> None:
    assert read_document(tmp_path, SPEC, os.getpid()) is None
    older, newer = begin(tmp_path), begin(tmp_path, "others")
    for age, run in ((10, newer), (20, older)):  # the newest by its last record
        os.utime(run.folder / "run.json", (age, age))
    found = read_document(tmp_path, SPEC, os.getpid())
    assert found is not None
    assert found["run_id"] == older.run_id
    assert read_document(tmp_path, Path("other.yaml"), os.getpid()) is None
    assert read_document(tmp_path, SPEC, 1) is None


def write(state: Path, run_id: str, name: str, verdict: str | None) -> None:
    folder = state / "runs" / run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"name": name, "verdict": verdict}))
