"""Ask a question: embed it, search, have a model answer from what was found, and hold the answer to its sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from rag.answer import (
    Answer,
    Messages,
    Source,
    abstained,
    build_messages,
    is_about,
    judge,
    select_hits,
    to_sources,
)
from rag.chunk import Hit
from rag.embed import Embedder
from rag.generation import NotIndexed, require_live
from rag.schema import Connection
from rag.search import EVERYTHING, Filter, Query, explain, search
from rag.vectors import checked

Chat = Callable[[Messages], Iterator[str]]
FOLLOW_UP_WORDS = 6  # a shorter question after another is searched for together with it


@dataclass(frozen=True)
class Asked:
    """One question. `before` are the turns before it, oldest first; the last user turn's words are in `previous`."""

    question: str
    tenant: str
    k: int = 4
    where: Filter = EVERYTHING
    max_context_tokens: int = 1024
    before: Messages = ()
    previous: str = ""
    request_id: str = ""

    @property
    def searched(self) -> str:
        """ "And on a GPU?" says little by itself."""
        short = len(self.question.split()) <= FOLLOW_UP_WORDS
        return f"{self.previous} {self.question}" if self.previous and short else self.question


@dataclass(frozen=True)
class Step:
    """What happens while a question is answered: the sources first, then pieces of text, the judged answer last."""

    sources: tuple[Source, ...] = ()
    delta: str = ""
    answer: Answer | None = None


def stream(asked: Asked, *, conn: Connection, embedder: Embedder, chat: Chat) -> Iterator[Step]:
    """Raises NotIndexed when there is nothing to search, EmbedderMismatch when the index is another model's."""
    hits = find(asked, conn=conn, embedder=embedder)
    if not hits:
        raise NotIndexed(f"The index of {asked.tenant} has nothing to answer from; index the documents first")
    shown = select_hits(hits, asked.max_context_tokens, embedder.count_tokens)
    yield Step(sources=to_sources(shown))
    if not is_about(shown):
        yield Step(answer=abstained(asked.question, shown, asked.request_id))
        return
    written = ""
    for piece in chat(build_messages(asked.question, shown, asked.before)):
        written += piece
        yield Step(delta=piece)
    yield Step(answer=judge(asked.question, written, shown, asked.request_id))


def ask(asked: Asked, *, conn: Connection, embedder: Embedder, chat: Chat) -> Answer:
    """The last step of `stream`."""
    return last_answer(stream(asked, conn=conn, embedder=embedder, chat=chat))


def last_answer(steps: Iterator[Step]) -> Answer:
    """Of the rest of a stream."""
    *_, last = steps
    if last.answer is None:
        raise AssertionError("a stream ends with the answer")
    return last.answer


def find(asked: Asked, *, conn: Connection, embedder: Embedder) -> tuple[Hit, ...]:
    """The `k` best passages. Where another generation takes the index's place meanwhile, that one is searched."""
    query = _query(asked, embedder)
    for last_try in (False, True):
        live = require_live(conn, asked.tenant, embedder.name, embedder.revision, embedder.dimension)
        try:
            return search(conn, live, query)
        except psycopg.errors.UndefinedTable:
            if last_try:
                raise
    raise AssertionError("unreachable")


def explain_search(asked: Asked, *, conn: Connection, embedder: Embedder) -> str:
    live = require_live(conn, asked.tenant, embedder.name, embedder.revision, embedder.dimension)
    return explain(conn, live, _query(asked, embedder))


def _query(asked: Asked, embedder: Embedder) -> Query:
    texts = [asked.searched]
    (vector,) = checked(embedder.embed(texts), texts, embedder.dimension, embedder.name)
    return Query(vector, asked.searched, asked.k, asked.where)
