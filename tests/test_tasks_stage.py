"""A stage on a real Prefect server: cached by its key, run again when its result is gone, recorded however it ends."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_RESULTS_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from tasks.artifacts import Split, StageRecord
from tasks.run import Run, start_run
from tasks.stage import Stage, Status, digest_of, stage

SHA = "a" * 64


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Prefect server, and the folder that it keeps results in."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        environment.setenv("DO_NOT_TRACK", "1")
        quiet: dict[Any, Any] = {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_LOGGING_TO_API_ENABLED: False}
        settings = {PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder, **quiet}
        with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
            yield folder


@pytest.fixture
def run(results: Path, tmp_path: Path) -> Run:
    return start_run(tmp_path, Path("release.yaml"), "tickets", resume=False, fresh=False)


@dataclass
class Work:
    """What a stage wraps: counts its calls, raises `errors` first, one a call."""

    calls: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    num_rows: int = 3

    def split(self, name: str, salt: str = "") -> Split:
        self.calls.append(name)
        if self.errors:
            raise self.errors.pop(0)
        return Split(name, Path("data") / f"{name}.jsonl", SHA, self.num_rows)


def split_stage(
    work: Work,
    name: str,
    *,
    cached: bool = True,
    intact: Callable[[Split], bool] = lambda _: True,
    status: Status = "done",
    retries: int = 0,
) -> Stage[..., Split]:
    """`name` separates one test's cache from another's."""
    return stage(
        name,
        key=(lambda split, salt="": ("1", split, salt)) if cached else None,
        digest=lambda split: split.sha256,
        note=lambda split: f"{split.num_rows} rows",
        artifact=lambda split: f"`{split.path}`\n",
        intact=intact,
        status=lambda _: status,
        retries=retries,
    )(work.split)


def test_a_finished_stage_comes_from_the_cache(run: Run) -> None:
    work = Work()
    split = split_stage(work, "cached")
    first, second = split("train"), split("train")
    assert work.calls == ["train"]
    assert first == second == Split("train", Path("data/train.jsonl"), SHA, 3)
    assert run.stages == [StageRecord("cached", "done", run.stages[0].seconds, True, SHA, "3 rows")]


def test_it_comes_from_the_cache_in_a_later_run_too(run: Run, tmp_path: Path) -> None:
    work = Work()
    split_stage(work, "later")("train")
    assert not run.stages[0].cached
    later = start_run(tmp_path, Path("release.yaml"), "tickets", resume=False, fresh=False)
    split_stage(work, "later")("train")
    assert (later.stages[0].cached, len(work.calls)) == (True, 1)


def test_another_input_is_another_key(run: Run) -> None:
    work = Work()
    split = split_stage(work, "keyed")
    for name, salt in (("train", ""), ("dev", ""), ("train", "2"), ("train", "")):
        split(name, salt=salt)
    assert work.calls == ["train", "dev", "train"]


def test_stages_of_another_name_share_nothing(run: Run) -> None:
    work = Work()
    split_stage(work, "one")("train")
    split_stage(work, "other")("train")
    assert len(work.calls) == 2
    assert [one.name for one in run.stages] == ["one", "other"]


def test_without_a_key_it_always_runs(run: Run) -> None:
    work = Work()
    split = split_stage(work, "uncached", cached=False)
    assert split("train") == split("train")
    assert len(work.calls) == 2


def test_a_fresh_run_reads_no_cache_and_writes_it(run: Run) -> None:
    work = Work()
    split = split_stage(work, "fresh")
    split("train")
    run.fresh, work.num_rows = True, 4
    assert split("train").num_rows == 4
    run.fresh = False
    assert split("train").num_rows == 4
    assert len(work.calls) == 2


def test_a_result_that_is_not_intact_is_made_again(run: Run) -> None:
    """The cache knows the value; whether the file it names is still there is the stage's to say."""
    asked: list[Split] = []

    def intact(split: Split) -> bool:
        asked.append(split)
        return split.num_rows == work.num_rows

    work = Work()
    split = split_stage(work, "intact", intact=intact)
    split("train")
    assert asked == []
    work.num_rows = 4
    assert split("train").num_rows == 4
    assert not run.stages[0].cached
    assert split("train").num_rows == 4
    assert run.stages[0].cached
    assert [one.num_rows for one in asked] == [3, 4]
    assert len(work.calls) == 2


@pytest.mark.parametrize("content", ["", '{"metadata": {', "{}"], ids=["empty", "cut", "nothing"])
def test_a_result_file_that_a_kill_left_half_written_is_made_again(run: Run, results: Path, content: str) -> None:
    work = Work()
    split = split_stage(work, "half")
    split("train")
    (file,) = results.glob("liftlock-half-*")
    file.write_text(content)
    assert split("train") == Split("train", Path("data/train.jsonl"), SHA, 3)
    assert not run.stages[0].cached
    file.unlink()


@pytest.mark.parametrize("kind", ["tasks.artifacts.Part", "tasks.gone.Split"])
def test_a_result_of_a_class_that_was_renamed_is_made_again(run: Run, results: Path, kind: str) -> None:
    work = Work()
    split = split_stage(work, "renamed", intact=lambda split: bool(split.sha256))
    split("train")
    (file,) = results.glob("liftlock-renamed-*")
    document = json.loads(file.read_text())
    document["result"] = document["result"].replace("tasks.artifacts.Split", kind)
    file.write_text(json.dumps(document))
    assert split("train") == Split("train", Path("data/train.jsonl"), SHA, 3)
    assert not run.stages[0].cached
    file.unlink()


def test_a_failure_is_recorded_and_raised(run: Run) -> None:
    work = Work(errors=[ValueError("no column text\nin train.jsonl")])
    with pytest.raises(ValueError, match="no column text"):
        split_stage(work, "failing", retries=2)("train")
    (record,) = run.stages
    assert (record.name, record.status, record.cached, record.digest) == ("failing", "failed", False, "")
    assert "no column text" in record.note
    assert "\n" not in record.note
    assert json.loads((run.folder / "run.json").read_text())["stages"][0]["status"] == "failed"
    assert len(work.calls) == 1, "a final error was tried again"


def test_a_failure_is_not_cached_and_the_next_try_takes_its_place(run: Run) -> None:
    work = Work(errors=[ValueError("no")])
    split = split_stage(work, "again")
    with pytest.raises(ValueError, match="no"):
        split("train")
    split("train")
    assert [(one.name, one.status) for one in run.stages] == [("again", "done")]


def test_a_transient_error_is_tried_again(run: Run) -> None:
    work = Work(errors=[httpx.ConnectError("the server restarts")])
    assert split_stage(work, "transient", retries=1)("train").num_rows == 3
    assert len(work.calls) == 2
    assert run.stages[0].status == "done"


def test_transient_errors_are_not_tried_for_ever(run: Run) -> None:
    work = Work(errors=[httpx.ConnectError("away") for _ in range(5)])
    with pytest.raises(httpx.ConnectError):
        split_stage(work, "exhausted", retries=1)("train")
    assert len(work.calls) == 2
    assert run.stages[0].status == "failed"


@pytest.mark.parametrize("status", ["rejected", "inconclusive", "undone"])
def test_a_no_is_a_result_and_not_a_failure(run: Run, status: Status) -> None:
    work = Work()
    split = split_stage(work, f"no-{status}", status=status)
    assert split("train") == split("train")
    assert (run.stages[0].status, run.stages[0].cached, len(work.calls)) == (status, True, 1)


def test_it_is_a_task_of_the_flow_with_an_artifact(run: Run) -> None:
    work = Work()

    @flow
    def release() -> int:
        return split_stage(work, "in_flow")("train").num_rows

    assert release() == 3
    url = PREFECT_API_URL.value()
    artifact = httpx.get(f"{url}/artifacts/liftlock-in-flow/latest").json()
    assert (artifact["type"], artifact["data"], artifact["description"]) == (
        "markdown",
        "`data/train.jsonl`\n",
        "3 rows",
    )
    found = httpx.get(f"{url}/task_runs/{artifact['task_run_id']}").json()
    assert (found["name"], found["state"]["type"], bool(found["flow_run_id"])) == (
        f"in_flow {run.name}",
        "COMPLETED",
        True,
    )


def test_digests_depend_on_content_and_order_of_parts_alone() -> None:
    assert digest_of({"a": 1, "b": Path("x")}) == digest_of({"b": Path("x"), "a": 1})
    assert len({digest_of(*parts) for parts in ((), (1,), ("1",), (1, 2), (2, 1), ((1, 2),), (None,))}) == 7
