"""The whole command `liftlock index` on a corpus of which nothing changed, as a person waits for it. Used by bench_rag.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo

from rag.chunk import Limits, chunk_document
from rag.corpus import find_files
from rag.embed import LocalEmbedder
from rag.generation import Pins
from rag.index import index, quiet
from rag.vectors import Vector
from tasks.rag import DATABASE, DEFAULT_TENANT
from tasks.setup import EMBEDDING_MODEL, MODELS, ROOT

FILES, RUNS = 5000, 3


def unchanged(dsn: str) -> dict[str, Any]:
    """Median seconds of the command, and what it says it embedded and wrote. The first index has drawn vectors: only their
    number matters here."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"create database {DATABASE}")  # type: ignore[arg-type,unused-ignore]  # a constant of ours
    with TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        _write(corpus)
        with psycopg.connect(make_conninfo(dsn, dbname=DATABASE), autocommit=True) as conn:
            _first_index(conn, corpus)
        times, said = [], {}
        for _ in range(RUNS):
            began = time.perf_counter()
            said = _command(dsn, corpus, Path(folder) / "state")
            times.append(time.perf_counter() - began)
    counts = {key: said[key] for key in ("documents", "written", "embedded")}
    return {"files": FILES, "seconds": float(np.median(times)), **counts}


def _write(corpus: Path) -> None:
    for number in range(FILES):
        file = corpus / f"part-{number % 50}" / f"page-{number}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# Page {number}\n\n{'The water rises and the gate opens. ' * 40}\n")


def _first_index(conn: psycopg.Connection[Any], corpus: Path) -> None:
    model, limits = LocalEmbedder(MODELS / EMBEDDING_MODEL), Limits()
    files = {file.source: file for file in find_files((corpus,), corpus)}

    def embed(texts: Sequence[str]) -> list[Vector]:
        drawn = np.random.default_rng(0).standard_normal((len(texts), model.dimension)).astype(np.float32)
        return list(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    pins = Pins(model.name, model.revision, model.dimension, "vector", limits.name)
    digests = {source: file.digest() for source, file in files.items()}
    index(
        conn,
        DEFAULT_TENANT,
        digests,
        lambda source: chunk_document(files[source].read(), model.count_tokens, limits),
        pins,
        embed,
        quiet,
    )


def _command(dsn: str, corpus: Path, state: Path) -> dict[str, Any]:
    server = dsn.rpartition("/")[0]
    environment = {**os.environ, "LIFTLOCK_POSTGRES_DSN": server, "LIFTLOCK_STATE": str(state), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-P", "-m", "flows.cli", "index", str(corpus), "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))
