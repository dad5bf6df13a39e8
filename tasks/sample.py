"""sample: the spec's documents go into pgvector, and its questions are answered through the gateway by the model that is served."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import psycopg

from rag.ask import ask, openai_chat
from rag.chunk import chunk_markdown
from rag.corpus import read_documents
from rag.embed import LocalEmbedder
from rag.store import index, migrate
from tasks.artifacts import Rollout, Sample, SampleAnswer
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.setup import EMBEDDING_MODEL
from tasks.spec import Release, SampleSpec
from tasks.stack.addresses import addresses
from tasks.stage import digest_of, stage

ANSWER_TOKENS = 96
CONTEXT_TOKENS = 512
HITS = 3


@lru_cache(maxsize=1)
def embedder() -> LocalEmbedder:
    return LocalEmbedder(get_settings().models / EMBEDDING_MODEL)


def index_documents(paths: tuple[Path, ...], dsn: str) -> int:
    """The index holds exactly these documents afterwards; returns the number of chunks."""
    model = embedder()
    chunks = {
        document.source: chunk_markdown(document, model.count_tokens)
        for document in read_documents(paths, _root(paths))
    }
    with psycopg.connect(dsn) as connection:
        migrate(connection, model)
        return index(connection, chunks, model.embed).chunks


def _root(paths: tuple[Path, ...]) -> Path:
    """The folder that sources are named from."""
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def answer_questions(rollout: Rollout, spec: Release) -> Sample:
    """Raises ChatUnavailable, ChatRefused, CorpusError, EmbedderMismatch."""
    sample = _required(spec)
    where = addresses(get_settings())
    dsn = where.dsn("rag")
    chunks = index_documents(sample.documents, dsn)
    answers: list[SampleAnswer] = []
    with psycopg.connect(dsn) as connection, httpx.Client(timeout=120) as client:
        chat = openai_chat(where.gateway, spec.name, client=client, max_tokens=ANSWER_TOKENS)
        for question in sample.questions:
            found = ask(
                question, conn=connection, embedder=embedder(), chat=chat, k=HITS, max_context_tokens=CONTEXT_TOKENS
            )
            sources = tuple(
                f"{source.source} › {' › '.join(source.headings)}" if source.headings else source.source
                for source in found.sources
            )
            answers.append(SampleAnswer(question, found.text, sources))
            current_run().console.print(
                f"  Q {question}\n  A {found.text}\n    {sources[0]}", highlight=False, markup=False, soft_wrap=True
            )
    return Sample(spec.name, chunks, tuple(answers), digest_of(answers, chunks))


def _required(spec: Release) -> SampleSpec:
    if spec.sample is None:
        raise ValueError("the spec has no sample")
    return spec.sample


def _documents_digest(paths: tuple[Path, ...]) -> list[tuple[str, str]]:
    files = sorted(
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.suffix in (".md", ".txt")
    )
    return [(str(file), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]


def _key(rollout: Rollout, spec: Release) -> tuple[Any, ...]:
    sample = _required(spec)
    return ("1", rollout.engine_model, sample.questions, _documents_digest(sample.documents))


def _artifact(sample: Sample) -> str:
    return (
        "\n\n".join(
            f"**{one.question}**\n\n{one.answer}\n\n" + "\n".join(f"- {source}" for source in one.sources)
            for one in sample.answers
        )
        + "\n"
    )


sample_answers = stage(
    "sample",
    key=_key,
    digest=lambda sample: sample.sha256,
    note=lambda sample: f"{len(sample.answers)} questions answered by {sample.model} from {sample.chunks} passages",
    artifact=_artifact,
)(answer_questions)
