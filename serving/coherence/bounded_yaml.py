"""YAML and JSON that strangers wrote, read in bounded memory: size, depth, nodes and what aliases expand to are limited.

It builds plain values from libyaml's events, with the line of each key of a mapping. Tags other than the core ones are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 8 << 20  # of one file
MAX_NODES = 400_000  # of one file, aliases counted at what they stand for
MAX_DEPTH = 64
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
OTHER_INTEGER = re.compile(r"0o?[0-7]{1,15}|0x[0-9a-fA-F]{1,15}")
FLOAT = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")
WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
WORDS |= dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "on", "On"), True)
WORDS |= dict.fromkeys(("false", "False", "FALSE", "no", "No", "off", "Off"), False)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlRefused(Exception):
    """A file that is no YAML, or more of it than a manifest needs."""


class Located(dict[str, Any]):
    """A mapping that knows the line of each key, and its own."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


@dataclass
class _Anchored:
    value: Any
    nodes: int


@dataclass
class _Open:
    """A mapping or a sequence that is being built."""

    value: Any
    anchor: str | None
    before: int  # nodes when it began
    key: Any = None
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


@dataclass
class _State:
    name: str
    nodes: int = 0
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    root: Any = None


def read_file(path: Path, name: str) -> list[Any]:
    """Its documents, without empty ones. Raises YamlRefused."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise YamlRefused(f"{name}: {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read; split the file")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlRefused(f"{name}: byte {error.start} is no UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise YamlRefused(f"{name}: cannot be read: {error.strerror}") from None
    return read_text(text, name)


def read_text(text: str, name: str) -> list[Any]:
    """As read_file, of a text (a ConfigMap's key holds YAML too)."""
    if len(text) > MAX_BYTES:
        raise YamlRefused(f"{name}: more than {MAX_BYTES:,} characters; split it")
    try:
        return [document for document in _documents(text, name) if document is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlRefused(f"{name}:{line}: not valid YAML: {error.problem}; mend it") from None
    except yaml.YAMLError as error:
        raise YamlRefused(f"{name}: not valid YAML: {str(error).splitlines()[0][:120]}; mend it") from None


def _documents(text: str, name: str) -> Iterator[Any]:
    state = _State(name)
    events: Iterator[Any] = yaml.parse(text, Loader=LOADER)  # lazily: a deep file is refused before it is whole
    for event in events:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            _add(state, _scalar(event), event.anchor, 1, event.start_mark.line + 1)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            _open(state, event, kind is yaml.MappingStartEvent)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            _close(state, event.start_mark.line + 1)
        elif kind is yaml.AliasEvent:
            _alias(state, event)
        elif kind is yaml.DocumentEndEvent:
            yield state.root
            state = _State(name, state.nodes)


def _open(state: _State, event: Any, mapping: bool) -> None:
    line = event.start_mark.line + 1
    if len(state.stack) >= MAX_DEPTH:
        raise YamlRefused(f"{state.name}:{line}: nested deeper than {MAX_DEPTH}; no manifest is")
    state.stack.append(_Open(Located(line) if mapping else [], event.anchor, state.nodes))


def _close(state: _State, line: int) -> None:
    done = state.stack.pop()
    for merged in done.merges:  # YAML 1.1's `<<`: what stands beside it wins
        for source in merged if isinstance(merged, list) else [merged]:
            for key, value in source.items() if isinstance(source, dict) else ():
                done.value.setdefault(key, value)
                done.value.lines.setdefault(key, line)
    _add(state, done.value, done.anchor, 1, line, nodes_before=done.before)


def _alias(state: _State, event: Any) -> None:
    line = event.start_mark.line + 1
    if event.anchor not in state.anchors:
        raise YamlRefused(f"{state.name}:{line}: no anchor &{event.anchor} stands above *{event.anchor}; add it")
    known = state.anchors[event.anchor]
    _add(state, known.value, None, known.nodes, line)


def _add(state: _State, value: Any, anchor: str | None, nodes: int, line: int, nodes_before: int | None = None) -> None:
    state.nodes += nodes
    if state.nodes > MAX_NODES:
        raise YamlRefused(
            f"{state.name}:{line}: more than {MAX_NODES:,} values (aliases expanded); no manifest has so many"
        )
    if anchor:
        before = state.nodes - nodes if nodes_before is None else nodes_before
        state.anchors[anchor] = _Anchored(value, state.nodes - before)
    if not state.stack:
        state.root = value
        return
    top = state.stack[-1]
    if isinstance(top.value, list):
        top.value.append(value)
    elif not top.has_key:
        top.key, top.has_key = _key(state, value, line), True
        top.value.lines.setdefault(top.key, line)
    else:
        top.has_key = False
        _put(state, top, value, line)


def _put(state: _State, top: _Open, value: Any, line: int) -> None:
    if top.key == "<<":
        top.merges.append(value)
    elif top.key in top.value:
        raise YamlRefused(f"{state.name}:{line}: the key {top.key!r} stands twice; take one out")
    else:
        top.value[top.key] = value


def _key(state: _State, value: Any, line: int) -> str:
    if isinstance(value, dict | list):
        raise YamlRefused(f"{state.name}:{line}: a key is no text; templates are read after `helm template`")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0] or event.style in ("'", '"', "|", ">"):
        return text
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text) and text not in (".", "+", "-"):
        return float(text)
    return int(text.replace("0o", "0"), 16 if "x" in text else 8) if OTHER_INTEGER.fullmatch(text) else text
