"""Cut Markdown into the passages that are embedded and quoted.

A chunk stays inside one section and is made of whole blocks: paragraphs, lists, tables, code fences. A block is cut
only where it alone is over the limit: a list at its items, prose at sentences, the rest at lines.
Pure; it does not know any tokenizer: counting tokens is the caller's.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

MIN_MAX_TOKENS = 16  # below this a tokenizer's special tokens and one character may not fit
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Document:
    """`source` is the path that answers cite; `text` is Markdown or plain text."""

    source: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """`id` and `content_digest` are hex sha256: they change with the content, not with the place in the document.

    `headings` runs from the outermost to the innermost; `ordinal` counts from 0 within the document.
    """

    id: str
    source: str
    headings: tuple[str, ...]
    ordinal: int
    text: str
    content_digest: str

    @property
    def passage(self) -> str:
        """What is embedded: a section's text rarely names its own subject, so the headings go first."""
        return _passage(self.headings, self.text)


@dataclass(frozen=True)
class Hit:
    """A chunk found for a question. `similarity` is the cosine, in [-1, 1]; hits are ordered by `score`, high first."""

    chunk: Chunk
    similarity: float
    score: float


def chunk_markdown(
    document: Document, count_tokens: Callable[[str], int], max_tokens: int = 200, overlap_tokens: int = 30
) -> tuple[Chunk, ...]:
    """Every chunk's `passage` (headings and text) counts at most `max_tokens`.

    Where a section needs several chunks, each begins with up to `overlap_tokens` of the sentences that end the one
    before; code, lists and tables are never repeated. Outer headings are left out of a path that would take more than
    half of the limit. Raises ValueError for limits that leave no room.
    """
    if max_tokens < MIN_MAX_TOKENS or not 0 <= overlap_tokens <= max_tokens // 2:
        raise ValueError(
            f"max_tokens={max_tokens}, overlap_tokens={overlap_tokens}: "
            f"max_tokens must be at least {MIN_MAX_TOKENS} and overlap_tokens at most half of it"
        )
    chunks: list[Chunk] = []
    occurrences: Counter[str] = Counter()  # equal passages in one document still need ids of their own
    for headings, blocks in _sections(document.text):
        while headings and count_tokens(_passage(headings, "")) > max_tokens // 2:
            headings = headings[1:]
        for text in _pack(blocks, headings, count_tokens, max_tokens, overlap_tokens):
            digest = _sha256(_passage(headings, text))
            chunk_id = _sha256(f"{document.source}\0{digest}\0{occurrences[digest]}")
            chunks.append(Chunk(chunk_id, document.source, headings, len(chunks), text, digest))
            occurrences[digest] += 1
    return tuple(chunks)


@dataclass(frozen=True)
class _Block:
    """A node of the syntax tree and its lines of the source, with all that follows up to the next node."""

    node: SyntaxTreeNode
    first_line: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def children(self) -> tuple["_Block", ...]:
        """Together they cover every line, so what the tree leaves out (link definitions) is not lost."""
        inner = [(node, node.map[0]) for node in self.node.children if node.type != "inline" and node.map]
        bounds = [self.first_line, *(start for _, start in inner[1:]), self.first_line + len(self.lines)]
        return tuple(
            _Block(node, start, self.lines[start - self.first_line : end - self.first_line])
            for (node, _), (start, end) in zip(inner, pairwise(bounds), strict=False)
        )


@dataclass(frozen=True)
class _Piece:
    """An exact slice of the source that is never cut further; joined pieces read as the source does."""

    text: str
    is_prose: bool


def _sections(text: str) -> Iterator[tuple[tuple[str, ...], list[_Block]]]:
    """Heading paths with their blocks. A heading with nothing of its own goes with the section after it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    root = _Block(SyntaxTreeNode(_MARKDOWN.parse(text)), 0, tuple(f"{line}\n" for line in text.split("\n")))
    path: dict[int, str] = {}
    blocks: list[_Block] = []
    for block in root.children():
        if block.node.type == "heading":
            if any(held.node.type != "heading" for held in blocks):
                yield tuple(path.values()), blocks
                blocks = []
            level = int(block.node.tag.removeprefix("h"))
            title = " ".join(" ".join(inline.content for inline in block.node.children).split())
            path = {outer: held for outer, held in path.items() if outer < level} | {level: title}
        blocks.append(block)
    yield tuple(path.values()), blocks


def _pack(
    blocks: Sequence[_Block],
    headings: tuple[str, ...],
    count_tokens: Callable[[str], int],
    max_tokens: int,
    overlap_tokens: int,
) -> Iterator[str]:
    """Texts of one section, each as many whole pieces as fit."""

    def fits(text: str) -> bool:
        return count_tokens(_passage(headings, _trim(text))) <= max_tokens

    held: list[_Piece] = []
    for piece in (piece for block in blocks for piece in _pieces(block, fits)):
        if held and not fits(_join([*held, piece])):
            yield _trim(_join(held))
            held = _overlap(held, lambda text: count_tokens(text) <= overlap_tokens)
            while held and not fits(_join([*held, piece])):
                held = held[1:]
        held.append(piece)
    if last := _trim(_join(held)):
        yield last


def _pieces(block: _Block, fits: Callable[[str], bool]) -> Iterator[_Piece]:
    is_prose = block.node.type == "paragraph"
    if fits(block.text):
        yield _Piece(block.text, is_prose)
    elif children := block.children():
        for child in children:
            yield from _pieces(child, fits)
    else:
        for text in _cut(block.text, (_sentences if is_prose else _lines, _words, _halves), fits):
            yield _Piece(text, is_prose)


def _cut(text: str, cuts: Sequence[Callable[[str], list[str]]], fits: Callable[[str], bool]) -> Iterator[str]:
    if fits(text) or len(text) == 1:
        yield text
        return
    for part in cuts[0](text):
        yield from _cut(part, cuts[1:] or cuts, fits)


def _sentences(text: str) -> list[str]:
    return re.findall(r".+?(?:[.!?][)\]\"']*\s+|\Z)", text, re.DOTALL)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def _overlap(held: list[_Piece], is_short: Callable[[str], bool]) -> list[_Piece]:
    sentences: list[_Piece] = []
    for piece in reversed(held):
        for sentence in reversed(_sentences(piece.text)):
            longer = [_Piece(sentence, piece.is_prose), *sentences]
            if not piece.is_prose or not is_short(_join(longer)):
                return sentences
            sentences = longer
    return sentences


def _join(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _trim(text: str) -> str:
    return text.rstrip().strip("\n")  # the first line's indentation stays: in code it means something


def _passage(headings: tuple[str, ...], text: str) -> str:
    return f"{' > '.join(headings)}\n\n{text}" if headings else text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
