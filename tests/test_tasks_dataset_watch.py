"""A watched dataset: its first digest is the baseline, each further one starts one release, whoever looks how often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tasks.dataset_watch import DatasetUnknown, Watched, in_files, in_mlflow, look, on_hub
from tasks.promotion.database import connect
from tasks.promotion.events import EventNotSent
from tests.fix_spec import SMALL

WATCHED = Watched("tickets", "release.yaml", "files", "one")


def looks(dsn: str, sent: list[Any], *digests: str) -> list[str]:
    return [look(partial(connect, dsn), replace(WATCHED, digest=digest), sent.append) for digest in digests]


def test_a_new_digest_starts_one_release_and_an_old_one_never_again(database: str) -> None:
    sent: list[dict[str, Any]] = []
    assert looks(database, sent, "one", "one", "two", "two", "one", "three", "two") == [
        "baseline", "unchanged", "started", "unchanged", "unchanged", "started", "unchanged",
    ]  # fmt: skip
    assert [one["payload"]["digest"] for one in sent] == ["two", "three"]
    assert {one["event"] for one in sent} == {"liftlock.dataset.changed"}
    assert sent[0]["payload"]["spec_file"] == "release.yaml"
    other = look(partial(connect, database), replace(WATCHED, source="hub:a/b@main"), sent.append)
    assert other == "baseline"  # each source has a first look of its own


def test_of_many_who_look_at_once_one_starts_it(database: str) -> None:
    sent: list[Any] = []
    looks(database, sent, "one")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: looks(database, sent, "two")[0], range(8)))
    assert (done.count("started"), len(sent)) == (1, 1)


def test_what_prefect_did_not_take_is_asked_for_at_the_next_look(database: str) -> None:
    sent: list[Any] = []
    looks(database, sent, "one")

    def down(_: object) -> None:
        raise EventNotSent("down")

    with pytest.raises(EventNotSent):
        look(partial(connect, database), replace(WATCHED, digest="two"), down)
    assert looks(database, sent, "two") == ["started"]


def fill(folder: Path) -> Path:
    (folder / "data").mkdir()
    for name in ("train", "test"):
        (folder / "data" / f"{name}.jsonl").write_text(f'{{"id": "{name}", "text": "{name}?", "answer": "a"}}\n')
    (folder / "task.yaml").write_text("task: t\n")
    (folder / "prompt.yaml").write_text('system: null\nuser: "{{text}}"\n')
    (folder / "release.yaml").write_text(SMALL)
    return folder / "release.yaml"


def test_files_are_watched_by_their_content(tmp_path: Path) -> None:
    spec = fill(tmp_path)
    first = in_files(spec)
    (tmp_path / "data" / "train.jsonl").touch()
    assert in_files(spec) == first
    with (tmp_path / "data" / "train.jsonl").open("a") as out:
        out.write('{"id": "more", "text": "more?", "answer": "b"}\n')
    assert in_files(spec).digest != first.digest


def test_a_dataset_of_mlflow_is_watched_by_the_newest_run_that_logged_it(tmp_path: Path, mlflow_client: Any) -> None:
    spec = fill(tmp_path)
    with pytest.raises(DatasetUnknown, match="no run with the dataset 'answers-"):
        in_mlflow(spec, f"answers-{tmp_path.name}", mlflow_client)
    digests = []
    for rows in ([1], [1, 2]):
        data = mlflow.data.from_pandas(pd.DataFrame({"a": rows}), name=f"answers-{tmp_path.name}")
        with mlflow.start_run():
            mlflow.log_input(data)
        digests.append(in_mlflow(spec, f"answers-{tmp_path.name}", mlflow_client).digest)
        assert digests[-1] == data.digest
    assert digests[0] != digests[1]


def test_a_hub_that_does_not_answer_is_no_new_revision(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnknown, match="team/data at main"):
        on_hub(fill(tmp_path), "team/data", "main", "http://127.0.0.1:9")
