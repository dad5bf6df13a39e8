"""The prompt made of a question and what was found, and the answer with its sources. Pure, but for reading the prompt.

Sources come from the search, never from the model: it may point at one by number, and a number nobody gave it is taken
out again. An answer that its sources do not support is not given: the best passage's own sentence is, or none.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rag.chunk import Hit
from rag.support import Quote, best_quote, find_support

PROMPT = "answer-1"  # a prompt is never edited: a new file gets the next number, and answers name theirs
NOT_FOUND = "Not in the documents."
MIN_SIMILARITY = 0.2  # below it, and without a matching word, no passage is about the question
MIN_QUOTED = 0.5  # share of a question's words that a sentence must have to be quoted as its answer

_CITATION = re.compile(r"(\s?)(?<!\w)\[(\d+(?:,\s?\d+)*)\]")  # [1] or [1, 2], but not the index in rows[1]
_ABSTAINS = re.compile(r"\bnot (?:\w+ )?in the (?:documents|sources)\b", re.IGNORECASE)

Messages = tuple[dict[str, str], ...]
Outcome = Literal["answered", "quoted", "abstained"]


class ContextTooSmall(Exception):
    """Not even the best passage fits beside the question: allow more context, or cut smaller chunks."""


@dataclass(frozen=True)
class Source:
    """`number` is what the text cites, from 1; `is_cited` says whether it does. `quotes` are spans of `text`."""

    number: int
    id: str
    source: str
    headings: tuple[str, ...]
    line: int
    text: str
    similarity: float
    score: float
    is_cited: bool = False
    quotes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Answer:
    """`outcome`: the model's own words, a sentence of the best passage instead of them, or nothing found.

    `unsupported` holds the model's words where they were not given."""

    question: str
    text: str
    outcome: Outcome
    sources: tuple[Source, ...]
    prompt: str = PROMPT
    request_id: str = ""
    unsupported: str = ""


def load_prompt(name: str = PROMPT) -> str:
    return (Path(__file__).with_name("prompts") / f"{name}.md").read_text().strip()


def select_hits(hits: Sequence[Hit], max_context_tokens: int, count_tokens: Callable[[str], int]) -> tuple[Hit, ...]:
    """The best hits whose quotations together count at most `max_context_tokens`. Raises ContextTooSmall."""
    best = tuple(hits)
    while best and (count := count_tokens(_quote(best))) > max_context_tokens:
        best = best[:-1]
        if not best:
            raise ContextTooSmall(
                f"The best passage takes {count} tokens and {max_context_tokens} are allowed; "
                f"allow at least {count} or index smaller chunks"
            )
    return best


def build_messages(question: str, hits: Sequence[Hit], before: Messages = ()) -> Messages:
    """Chat messages in OpenAI's format; hits are numbered from 1. `before` are a conversation's last turns."""
    system = {"role": "system", "content": load_prompt()}
    return (
        system,
        *before,
        {"role": "user", "content": f"{_quote(hits)}\n\nQuestion: {defuse(question)}"},
    )


def is_about(hits: Sequence[Hit]) -> bool:
    """Whether any passage is near enough to be worth asking about."""
    return any(hit.similarity >= MIN_SIMILARITY for hit in hits)


def to_sources(hits: Sequence[Hit]) -> tuple[Source, ...]:
    return tuple(
        Source(n, hit.chunk.id, hit.chunk.source, hit.chunk.headings, hit.chunk.line, hit.chunk.text, hit.similarity, hit.score)
        for n, hit in enumerate(hits, start=1)
    )  # fmt: skip


def judge(question: str, written: str, hits: Sequence[Hit], request_id: str = "") -> Answer:
    """What is given as the answer, of what the model wrote."""
    text, cited = _known_citations(written, len(hits))
    quotes = find_support(text, [hit.chunk.text for hit in hits])
    if not text or _ABSTAINS.search(text):
        return abstained(question, hits, request_id)
    if quotes and all(quote.is_supported for quote in quotes):
        named = cited | {quote.number for quote in quotes}
        return Answer(question, text, "answered", _marked(hits, named, quotes), request_id=request_id)
    return _quoted(question, text, hits, request_id)


def abstained(question: str, hits: Sequence[Hit], request_id: str = "", unsupported: str = "") -> Answer:
    return Answer(question, NOT_FOUND, "abstained", to_sources(hits), request_id=request_id, unsupported=unsupported)


def _quoted(question: str, written: str, hits: Sequence[Hit], request_id: str) -> Answer:
    """A sentence of the first passages that has most of the question's words, instead of words that nothing supports."""
    texts = {number: hit.chunk.text for number, hit in enumerate(hits, start=1)}
    quote = best_quote(question.removesuffix("?"), texts)
    if quote.share < MIN_QUOTED:
        return abstained(question, hits, request_id, written)
    span = texts[quote.number][quote.start : quote.end].strip()
    sources = _marked(hits, {quote.number}, (quote,))
    text = f"{' '.join(span.split())} [{quote.number}]"
    return Answer(question, text, "quoted", sources, request_id=request_id, unsupported=written)


def _marked(hits: Sequence[Hit], cited: set[int], quotes: Sequence[Quote]) -> tuple[Source, ...]:
    def spans(number: int) -> tuple[tuple[int, int], ...]:
        return tuple(sorted({(quote.start, quote.end) for quote in quotes if quote.number == number}))

    return tuple(
        replace(source, is_cited=source.number in cited, quotes=spans(source.number)) for source in to_sources(hits)
    )


def _known_citations(text: str, count: int) -> tuple[str, set[int]]:
    """The text without bracketed numbers of no source, and the numbers it cites."""
    cited: set[int] = set()

    def keep_known(citation: re.Match[str]) -> str:
        known = [number for number in map(int, re.findall(r"\d+", citation[2])) if 1 <= number <= count]
        cited.update(known)
        return f"{citation[1]}[{', '.join(map(str, known))}]" if known else ""

    return _CITATION.sub(keep_known, text).strip(), cited


def _quote(hits: Sequence[Hit]) -> str:
    return "\n\n".join(
        f'<source id="{number}">\n{defuse(hit.chunk.passage)}\n</source>' for number, hit in enumerate(hits, start=1)
    )


def defuse(text: str) -> str:
    """Make harmless what could end a quotation or, as a chat template's control token, the user's turn."""
    return re.sub(r"<(?=\||/?\s*source)", "‹", text, flags=re.IGNORECASE)
