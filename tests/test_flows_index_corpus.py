"""The flow that indexes documents, on a real Prefect server: a repository's address, a real Postgres, an embeddings server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest

from rag.embed_server import make_app
from tasks.settings import get_settings
from tests.fix_http import serving_app
from tests.fix_prefect import PrefectServer
from tests.fix_rag import MODEL, WordEmbedder


@pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup puts it there")
def test_a_run_follows_a_repository_and_its_artifact_says_what_it_did(
    in_prefect: PrefectServer, postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.index_corpus import index_corpus

    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "rollback.md").write_text("# Rollback\n\nOne command undoes a release.")
    git = ["git", "-C", str(docs), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
        server.execute("drop database if exists rag with (force)")
        server.execute("create database rag")
    embedder = WordEmbedder()
    with serving_app(make_app(embedder)) as url:  # type: ignore[arg-type]
        for name, value in {
            "STATE": str(tmp_path / "state"), "POSTGRES_DSN": postgres_dsn.rpartition("/")[0], "EMBEDDINGS_URL": url,
            "EMBEDDINGS_MODEL": "words", "EMBEDDINGS_TOKENIZER": str(MODEL / "tokenizer.json"),
        }.items():  # fmt: skip
            monkeypatch.setenv(f"LIFTLOCK_{name}", value)
        get_settings.cache_clear()
        first = index_corpus(paths=[docs.as_uri()], tenant="handbook")
        again = index_corpus(paths=[docs.as_uri()], tenant="handbook")
    get_settings.cache_clear()
    assert (first["documents"], first["embedded"], first["skipped"]) == (1, 1, ())
    assert (again["documents"], again["embedded"], again["written"]) == (1, 0, 0)
    runs = in_prefect.post("/flow_runs/filter", {"flows": {"name": {"any_": ["index_corpus"]}}})
    assert {(run["name"], run["state_type"]) for run in runs} == {("documents of handbook", "COMPLETED")}
    artifacts = in_prefect.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["liftlock-index"]}}})
    assert {"| embedded | 1 |" in one["data"] for one in artifacts} == {True, False}
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
        server.execute("drop database rag with (force)")
