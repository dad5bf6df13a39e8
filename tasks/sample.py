"""sample: the spec's documents go into pgvector, and its questions are answered through the gateway by the model that is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.ask import Asked, ask
from rag.corpus import find_files
from tasks.artifacts import Rollout, Sample, SampleAnswer
from tasks.rag import index_paths, open_parts, root_of
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.spec import Release, SampleSpec
from tasks.stage import digest_of, stage

ANSWER_TOKENS = 96
CONTEXT_TOKENS = 512
HITS = 3


def answer_questions(rollout: Rollout, spec: Release) -> Sample:
    """Raises ChatUnavailable, ChatRefused, CorpusError, EmbedderBusy. The model's name is the tenant."""
    sample = _required(spec)
    answers: list[SampleAnswer] = []
    with open_parts(get_settings()) as parts:
        held = index_paths(parts, sample.documents, spec.name)
        embedder, chat = parts.embedder(), parts.chat(spec.name, max_tokens=ANSWER_TOKENS)
        for question in sample.questions:
            asked = Asked(question, spec.name, k=HITS, max_context_tokens=CONTEXT_TOKENS)
            found = ask(asked, conn=parts.conn, embedder=embedder, chat=chat)
            sources = tuple(" › ".join((source.source, *source.headings)) for source in found.sources)
            answers.append(SampleAnswer(question, found.text, sources))
            current_run().console.print(
                f"  Q {question}\n  A {found.text}\n    {sources[0]}", highlight=False, markup=False, soft_wrap=True
            )
    return Sample(spec.name, held.chunks, tuple(answers), digest_of(answers, held.chunks))


def _required(spec: Release) -> SampleSpec:
    if spec.sample is None:
        raise ValueError("the spec has no sample")
    return spec.sample


def _documents_digest(paths: tuple[Path, ...]) -> list[tuple[str, str]]:
    return [(file.source, file.digest()) for file in find_files(paths, root_of(paths))]


def _key(rollout: Rollout, spec: Release) -> tuple[Any, ...]:
    sample = _required(spec)
    return ("2", rollout.engine_model, sample.questions, _documents_digest(sample.documents))


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
