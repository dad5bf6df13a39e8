"""Plain YAML with the line of every key: mappings with text keys, lists, text, numbers, true, false and null.

What a person writes into a settings file, and nothing that needs an interpreter: no tags, anchors, merge keys or dates
(a date is text here). It knows nothing of what the keys mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from evals.nesting import too_deep

Where = tuple[str, ...]
TAG = "tag:yaml.org,2002:"
TEXT = {"str", "timestamp", "value", "merge"}  # what looks like one of the last three is text here
DEPTH = 20


class YamlInvalid(Exception):
    """Text that is not plain YAML. `line` counts from 1."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(fault)
        self.line = line


@dataclass(frozen=True)
class Plain:
    """The document's value, and the line of each key and list item by its path (list items by their number)."""

    value: Any
    lines: Mapping[Where, int]

    def line(self, where: Where) -> int:
        """Of the deepest part of `where` that stands in the text; 1 where none does."""
        found = (self.lines[where[:end]] for end in range(len(where), 0, -1) if where[:end] in self.lines)
        return next(found, 1)


def read_plain(text: str) -> Plain:
    """Raises YamlInvalid. An empty text has the value None."""
    if too_deep(text):
        raise YamlInvalid(1, "nested too deeply")
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise _broken(error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlInvalid(line, f"the control character U+{error.character:04X} cannot stand in YAML") from None
    except RecursionError:
        raise YamlInvalid(1, "nested too deeply") from None
    lines: dict[Where, int] = {}
    return Plain(None if root is None else _value(root, (), lines, set()), lines)


def _broken(error: MarkedYAMLError) -> YamlInvalid:
    mark, began = error.problem_mark, error.context_mark
    since = f", {error.context} in line {began.line + 1}" if mark and began and began.line < mark.line else ""
    return YamlInvalid(mark.line + 1 if mark else 1, f"not valid YAML: {error.problem}{since}")


def _value(node: Node, where: Where, lines: dict[Where, int], seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    if id(node) in seen:
        raise YamlInvalid(line, "anchors and aliases (& and *) are not read here; write the value out")
    seen.add(id(node))
    if len(where) > DEPTH:
        raise YamlInvalid(line, "nested too deeply")
    if isinstance(node, MappingNode) and node.tag == f"{TAG}map":
        return _mapping(node, where, lines, seen)
    if isinstance(node, SequenceNode) and node.tag == f"{TAG}seq":
        return [_at(item, item, (*where, str(i)), lines, seen) for i, item in enumerate(node.value)]
    if isinstance(node, ScalarNode):
        return _scalar(node)
    raise YamlInvalid(line, f"the tag {node.tag} is not read here; take it out")


def _mapping(node: MappingNode, where: Where, lines: dict[Where, int], seen: set[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = _text(key, line) if isinstance(key, ScalarNode) else None
        if name is None:
            raise YamlInvalid(line, "a key is text")
        if name in found:
            raise YamlInvalid(line, f"the key {name!r} stands already in line {lines[(*where, name)]}")
        found[name] = _at(key, value, (*where, name), lines, seen)
    return found


def _at(marked: Node, node: Node, where: Where, lines: dict[Where, int], seen: set[int]) -> Any:
    lines[where] = marked.start_mark.line + 1
    return _value(node, where, lines, seen)


def _scalar(node: ScalarNode) -> Any:
    line, kind = node.start_mark.line + 1, str(node.tag).removeprefix(TAG)
    if kind in TEXT:
        return _text(node, line)
    try:
        return CONVERT[kind](node.value.replace("_", ""))
    except (KeyError, ValueError):
        raise YamlInvalid(line, f"{node.value[:40]!r} cannot be read as {kind}") from None


def _text(node: ScalarNode, line: int) -> str:
    if any(0xD800 <= ord(character) < 0xE000 for character in node.value):
        raise YamlInvalid(line, "half of a surrogate pair is no text")
    return str(node.value)


def _whole_number(text: str) -> int:
    number = int(text, 0) if text.lstrip("+-")[:2] in ("0x", "0o") else int(text)
    if number.bit_length() > 64:
        raise ValueError("no settings file needs it")
    return number


CONVERT: dict[str, Callable[[str], Any]] = {
    "int": _whole_number,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "null": lambda text: None,
}
