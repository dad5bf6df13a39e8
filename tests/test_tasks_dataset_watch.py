"""A watched dataset: its first digest is the baseline, each further one starts one release, whoever looks how often."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
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


@contextmanager
def hub(commits: dict[str, str]) -> Iterator[str]:
    """The one answer of a hub that is asked for: the commit of a branch."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            commit = commits.get(self.path.removeprefix("/api/datasets/team/data/revision/"))
            body = json.dumps({"sha": commit} if commit else {"error": "Revision not found"}).encode()
            self.send_response(200 if commit else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_revision_on_a_hub_is_watched_by_its_commit(tmp_path: Path) -> None:
    spec, commits = fill(tmp_path), {"main": "c0ffee", "refs%2Fpr%2F1": "beef"}
    with hub(commits) as endpoint:
        assert on_hub(spec, "team/data", "main", endpoint).digest == "c0ffee"
        assert on_hub(spec, "team/data", "refs/pr/1", endpoint).digest == "beef"
        commits["main"] = "decaf"
        found = on_hub(spec, "team/data", "main", endpoint)
        assert (found.digest, found.source) == ("decaf", "hub:team/data@main")
        with pytest.raises(DatasetUnknown, match=r"team/data at gone: .*404"):
            on_hub(spec, "team/data", "gone", endpoint)


def test_a_hub_that_does_not_answer_is_no_new_revision(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnknown, match="team/data at main"):
        on_hub(fill(tmp_path), "team/data", "main", "http://127.0.0.1:9")
