"""`liftlock index`, `ask`, `chat` and `recall` as a user runs them, with a real Postgres, the real model's server and a streaming one."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from rag.embed import LocalEmbedder
from rag.embed_server import make_app
from tests.fix_http import answering, events_of, serving_answers, serving_app
from tests.fix_stack import ROOT

MODELS = answering(200, {"data": [{"id": "only-model"}]})
SAID = answering(200, events_of("`liftlock rollback NAME` undoes ", "a release [1]."))
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def liftlock(postgres_dsn: str, local_embedder: LocalEmbedder, tmp_path: Path) -> Iterator[Command]:
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
        server.execute("drop database if exists rag with (force)")
        server.execute("create database rag")
    with serving_app(make_app(local_embedder)) as embeddings, serving_answers(MODELS, SAID, MODELS, SAID) as gateway:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFTLOCK_")} | {
            "LIFTLOCK_POSTGRES_DSN": postgres_dsn.rpartition("/")[0],
            "LIFTLOCK_EMBEDDINGS_URL": embeddings,
            "LIFTLOCK_GATEWAY_URL": gateway.url,
            "LIFTLOCK_STATE": str(tmp_path / "state"),
            "PYTHONPATH": str(ROOT),
        }

        def run(*arguments: str, say: str = "") -> subprocess.CompletedProcess[str]:
            argv = [str(ROOT / ".venv" / "bin" / "python"), "-m", "flows.cli", *arguments]
            return subprocess.run(
                argv, capture_output=True, text=True, input=say, cwd=tmp_path, env=environment, timeout=120, check=False
            )

        yield run
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
        server.execute("drop database rag with (force)")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rollback.md").write_text("# Rollback\n\n`liftlock rollback NAME` undoes a release with one command.")
    (folder / "broken.md").write_bytes(b"\xff\xfe")
    return folder


def test_documents_are_indexed_asked_and_talked_about(liftlock: Command, documents: Path) -> None:
    first = liftlock("index", str(documents))
    assert first.returncode == 0
    assert first.stdout == "1 documents, 1 passages: 1 embedded, 1 written, 0 removed, 1 files skipped\n"
    assert "skipped: broken.md is not UTF-8 (byte 0)" in first.stderr
    again = json.loads(liftlock("index", str(documents), "--json").stdout)
    assert (again["documents"], again["embedded"], again["written"]) == (1, 0, 0)

    answer = liftlock("ask", "How is a release undone?")
    assert answer.returncode == 0
    assert answer.stdout.startswith(
        "`liftlock rollback NAME` undoes a release [1].\n  [1] rollback.md:1 › Rollback  0."
    )
    talk = liftlock("chat", say="How is a release undone?\n\n")
    assert (talk.returncode, talk.stdout) == (0, answer.stdout)
    absent = liftlock("ask", "Which wine goes with roast duck?", "--json")
    assert (absent.returncode, json.loads(absent.stdout)["outcome"]) == (4, "abstained")
    assert "Execution Time" in liftlock("ask", "release", "--explain").stdout


def test_a_repositorys_address_is_copied_and_indexed(liftlock: Command, documents: Path) -> None:
    git = ["git", "-C", str(documents), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "rollback.md"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    done = liftlock("index", documents.as_uri())
    assert (done.returncode, done.stdout) == (
        0,
        "1 documents, 1 passages: 1 embedded, 1 written, 0 removed, 0 files skipped\n",
    )
    assert "[1] rollback.md:1" in liftlock("ask", "How is a release undone?").stdout
    again = json.loads(liftlock("index", documents.as_uri(), "--json").stdout)
    assert (again["embedded"], again["written"]) == (0, 0)


def test_what_cannot_be_done_is_said_in_one_line(liftlock: Command, documents: Path) -> None:
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("index", "nowhere"), 2, "nowhere is not there"),
        (("index", f"{documents.as_uri()}-not"), 2, "git clone failed"),
        (("index", "http://git.example.com/docs"), 2, "http:// is not taken"),
        (("index", str(documents), "--tenant", "A B"), 2, "'A B' is no tenant's name"),
        (("ask", "x"), 2, "default has no index"),
        (("ask", "x", "--kind", "pfd"), 2, "'pfd' is no kind of document"),
        (("recall", str(documents)), 2, "questions.jsonl is not there"),
    ]
    for arguments, code, message in cases:
        done = liftlock(*arguments)
        assert (done.returncode, done.stdout) == (code, "") and message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_nightly_deployment_names_the_flow_and_its_parameters() -> None:
    from flows.index_corpus import index_corpus

    deployments: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (nightly,) = [one for one in deployments if one["entrypoint"] == "flows.index_corpus.index_corpus"]
    assert nightly["parameters"].keys() <= index_corpus.parameters.properties.keys()
