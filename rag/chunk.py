"""Cut documents into the passages that are embedded and quoted.

A chunk stays inside one section and is made of whole blocks: paragraphs, lists, tables, code fences; of source code,
definitions. A block is cut only where it alone is over the limit: a list at its items, prose at sentences, the rest at
lines. Pure; it does not know any tokenizer: counting tokens is the caller's.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rag.blocks import Block, Piece, join, pieces, sections, sentences, trim

MIN_MAX_TOKENS = 16  # below this a tokenizer's special tokens and one character may not fit
MAX_TOKENS, OVERLAP_TOKENS = 200, 30
MAX_TOKEN_CHARACTERS = 16  # on average; a longer "word" is one unknown token to many a tokenizer, whatever it says
VERSION = 2  # of the way documents are cut: another one makes another generation of the index


@dataclass(frozen=True)
class Document:
    """`source` is the path that answers cite; `text` is Markdown unless `kind` is text or code."""

    source: str
    text: str
    kind: str = "markdown"


@dataclass(frozen=True)
class Chunk:
    """`id` and `digest` are hex sha256: they change with the content, not with the place in the document.

    `headings` runs from the outermost to the innermost; `ordinal` counts from 0 within the document, `line` from 1.
    """

    id: str
    source: str
    kind: str
    headings: tuple[str, ...]
    ordinal: int
    line: int
    text: str
    digest: str

    @property
    def passage(self) -> str:
        """What is embedded: a section's text rarely names its own subject, so the headings go first."""
        return _passage(self.headings, self.text)


@dataclass(frozen=True)
class Hit:
    """A chunk found for a question. `similarity` is the cosine, in [-1, 1]; ranks count from 1 in the list that has it."""

    chunk: Chunk
    similarity: float
    score: float
    vector_rank: int | None = None
    text_rank: int | None = None


@dataclass(frozen=True)
class Limits:
    """In tokens of the embedding model. Raises ValueError for limits that leave no room."""

    max_tokens: int = MAX_TOKENS
    overlap_tokens: int = OVERLAP_TOKENS

    def __post_init__(self) -> None:
        if self.max_tokens < MIN_MAX_TOKENS or not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise ValueError(
                f"max_tokens={self.max_tokens}, overlap_tokens={self.overlap_tokens}: "
                f"max_tokens must be at least {MIN_MAX_TOKENS} and overlap_tokens at most half of it"
            )

    @property
    def name(self) -> str:
        """What a generation of the index is pinned to."""
        return f"{VERSION}/{self.max_tokens}/{self.overlap_tokens}"


def chunk_document(document: Document, count_tokens: Callable[[str], int], limits: Limits) -> tuple[Chunk, ...]:
    """Every chunk's `passage` (headings and text) counts at most `max_tokens`.

    Where a section needs several chunks, each begins with up to `overlap_tokens` of the sentences that end the one
    before; code, lists and tables are never repeated. Outer headings are left out of a path that would take more than
    half of the limit.
    """
    chunks: list[Chunk] = []
    occurrences: Counter[str] = Counter()  # equal passages in one document still need ids of their own
    for headings, blocks in sections(document.text, document.kind):
        while headings and count_tokens(_passage(headings, "")) > limits.max_tokens // 2:
            headings = headings[1:]
        for line, text in _pack(blocks, headings, count_tokens, limits):
            digest = _sha256(_passage(headings, text))
            chunk_id = _sha256(f"{document.source}\0{digest}\0{occurrences[digest]}")
            chunks.append(
                Chunk(chunk_id, document.source, document.kind, headings, len(chunks), line + 1, text, digest)
            )
            occurrences[digest] += 1
    return tuple(chunks)


def _pack(
    blocks: Sequence[Block], headings: tuple[str, ...], count_tokens: Callable[[str], int], limits: Limits
) -> Iterator[tuple[int, str]]:
    """Texts of one section with their first lines, each as many whole pieces as fit."""

    def fits(text: str) -> bool:
        passage = _passage(headings, trim(text))
        short = len(passage) <= limits.max_tokens * MAX_TOKEN_CHARACTERS
        return short and count_tokens(passage) <= limits.max_tokens

    held: list[Piece] = []
    for piece in (piece for block in blocks for piece in pieces(block, fits)):
        if held and not fits(join([*held, piece])):
            yield held[0].line, trim(join(held))
            held = _overlap(held, lambda text: count_tokens(text) <= limits.overlap_tokens)
            while held and not fits(join([*held, piece])):
                held = held[1:]
        held.append(piece)
    if last := trim(join(held)):
        yield held[0].line, last


def _overlap(held: list[Piece], is_short: Callable[[str], bool]) -> list[Piece]:
    kept: list[Piece] = []
    for piece in reversed(held):
        for sentence in reversed(sentences(piece.text)):
            longer = [Piece(sentence, piece.is_prose, piece.line), *kept]
            if not piece.is_prose or not is_short(join(longer)):
                return kept
            kept = longer
    return kept


def _passage(headings: tuple[str, ...], text: str) -> str:
    return f"{' > '.join(headings)}\n\n{text}" if headings else text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
