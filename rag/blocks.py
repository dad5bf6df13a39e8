"""The structure of a text: sections with their heading path, blocks, and the pieces that are never cut further. Pure.

Markdown is read by its syntax tree. Plain text has paragraphs and no headings; source code has definitions that start
at the left margin, whose first line is their heading. Every line of the text belongs to exactly one block.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_PARAGRAPHS = MarkdownIt("zero")  # no rule but the paragraph
_DEFINITION = re.compile(
    r"(?:(?:export|default|public|private|protected|static|final|abstract|pub(?:\([a-z]+\))?|async|unsafe|inline)\s+)*"
    r"(?:def|class|func|fn|function|struct|enum|trait|impl|interface|type|module|create\s+(?:table|function))\b",
    re.IGNORECASE,
)
Headings = tuple[str, ...]
Fits = Callable[[str], bool]


@dataclass(frozen=True)
class Block:
    """A node of the syntax tree and its lines of the source, with all that follows up to the next node."""

    node: SyntaxTreeNode
    first_line: int
    lines: tuple[str, ...]
    is_code: bool = False

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def is_prose(self) -> bool:
        return self.node.type == "paragraph" and not self.is_code

    def children(self) -> tuple["Block", ...]:
        """Together they cover every line, so what the tree leaves out (link definitions) is not lost."""
        inner = [(node, node.map[0]) for node in self.node.children if node.type != "inline" and node.map]
        bounds = [self.first_line, *(start for _, start in inner[1:]), self.first_line + len(self.lines)]
        return tuple(
            Block(node, start, self.lines[start - self.first_line : end - self.first_line], self.is_code)
            for (node, _), (start, end) in zip(inner, pairwise(bounds), strict=False)
        )


@dataclass(frozen=True)
class Piece:
    """An exact slice of the source that is never cut further; joined pieces read as the source does."""

    text: str
    is_prose: bool
    line: int


def sections(text: str, kind: str) -> Iterator[tuple[Headings, list[Block]]]:
    """Heading paths with their blocks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    parser = _PARAGRAPHS if kind in ("text", "code") else _MARKDOWN
    lines = tuple(f"{line}\n" for line in text.split("\n"))
    blocks = Block(SyntaxTreeNode(parser.parse(text)), 0, lines, kind == "code").children()
    return _definitions(blocks) if kind == "code" else _headed(blocks)


def _headed(blocks: Sequence[Block]) -> Iterator[tuple[Headings, list[Block]]]:
    """A heading with nothing of its own goes with the section after it."""
    path: dict[int, str] = {}
    held: list[Block] = []
    for block in blocks:
        if block.node.type == "heading":
            if any(one.node.type != "heading" for one in held):
                yield tuple(path.values()), held
                held = []
            level = int(block.node.tag.removeprefix("h"))
            title = " ".join(" ".join(inline.content for inline in block.node.children).split())
            path = {outer: kept for outer, kept in path.items() if outer < level} | {level: title}
        held.append(block)
    yield tuple(path.values()), held


def _definitions(blocks: Sequence[Block]) -> Iterator[tuple[Headings, list[Block]]]:
    """Source code: from one definition at the left margin to the next; what stands before the first has no heading."""
    path: Headings = ()
    held: list[Block] = []
    for block in blocks:
        found = next((line for line in block.lines if _DEFINITION.match(line)), None)
        if found is not None:
            if held:
                yield path, held
            path, held = (found.strip().rstrip(":{").strip(),), []
        held.append(block)
    yield path, held


def pieces(block: Block, fits: Fits) -> Iterator[Piece]:
    """Whole blocks where they fit, else their children, else parts of their text."""
    if fits(block.text):
        yield Piece(block.text, block.is_prose, block.first_line)
    elif children := block.children():
        for child in children:
            yield from pieces(child, fits)
    else:
        line = block.first_line
        for text in _cut(block.text, (sentences if block.is_prose else _lines, _words, _halves), fits):
            yield Piece(text, block.is_prose, line)
            line += text.count("\n")


def _cut(text: str, cuts: Sequence[Callable[[str], list[str]]], fits: Fits) -> Iterator[str]:
    if fits(text) or len(text) == 1:
        yield text
        return
    for part in cuts[0](text):
        yield from _cut(part, cuts[1:] or cuts, fits)


def sentences(text: str) -> list[str]:
    return re.findall(r".+?(?:[.!?][)\]\"']*\s+|\Z)", text, re.DOTALL)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def join(parts: Sequence[Piece]) -> str:
    return "".join(part.text for part in parts)


def trim(text: str) -> str:
    return text.rstrip().strip("\n")  # the first line's indentation stays: in code it means something
