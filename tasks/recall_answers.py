"""What the served model answers to a suite's questions, and how much of it stands in its sources. Effect (HTTP, Postgres).

The check is the deterministic one that every answer goes through (rag/support.py); no model judges.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rag.answer import Answer
from rag.ask import Asked, Step, last_answer, stream
from rag.support import find_support
from tasks.documents_suite import Question, load_questions
from tasks.rag import Parts
from tasks.recall import tenant_of

AT_ONCE = 8  # questions, so that the engine works on several in one batch
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answers:
    """Numbers of questions by what was given; `from_gold` of those given cite the passage that answers. Of the model's own words,
    shown or not, `supported` of `sentences` stand in a passage."""

    questions: int
    answered: int
    quoted: int
    abstained: int
    from_gold: int
    sentences: int
    supported: int


def measure_answers(parts: Parts, suite: Path, model: str | None, progress: Progress) -> dict[str, Answers]:
    """Of the answerable and of the unanswerable questions, on the indexes that `measure` made.

    Raises DocumentsSuiteInvalid, ModelUnnamed, ChatUnavailable, ChatRefused, NotIndexed.
    """
    given: dict[str, list[tuple[Question, Answer]]] = {"answerable": [], "unanswerable": []}
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        asked = [
            (question, pool.submit(last_answer, _found(parts, question, model))) for question in load_questions(suite)
        ]
        for done, (question, answer) in enumerate(asked):
            progress("answered", done, len(asked))
            given["unanswerable" if question.kind == "none" else "answerable"].append((question, answer.result()))
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: count(pairs) for name, pairs in given.items()}


def _found(parts: Parts, question: Question, model: str | None) -> Iterator[Step]:
    """Up to its sources: the search is done here, because the connection is one thread's."""
    request_id = uuid.uuid4().hex
    asked = Asked(question.question, tenant_of(question.corpus), request_id=request_id)
    steps = stream(asked, conn=parts.conn, embedder=parts.embedder(request_id), chat=parts.chat(model, request_id))
    next(steps)
    return steps


def count(given: Iterable[tuple[Question, Answer]]) -> Answers:
    """Pure."""
    pairs = tuple(given)
    outcomes = Counter(answer.outcome for _, answer in pairs)
    checked = [quote.is_supported for _, answer in pairs for quote in find_support(_own_words(answer), _texts(answer))]
    from_gold = sum(
        question.kind != "none" and any(one.is_cited and question.is_held_by(one.source, one.text) for one in answer.sources)
        for question, answer in pairs
    )  # fmt: skip
    return Answers(
        len(pairs),
        outcomes["answered"],
        outcomes["quoted"],
        outcomes["abstained"],
        from_gold,
        len(checked),
        sum(checked),
    )


def _own_words(answer: Answer) -> str:
    """Nothing where the model said that it is not there, or was not asked."""
    return answer.text if answer.outcome == "answered" else answer.unsupported


def _texts(answer: Answer) -> list[str]:
    return [source.text for source in answer.sources]
