"""Kubernetes objects as YAML text, the same bytes for the same objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Object = Mapping[str, Any]
WIDTH = 130


class _Dumper(yaml.SafeDumper):
    """Keys in the order given; texts of several lines as blocks; no anchors; lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(*documents: Object) -> str:
    """One stream; a document marker between two."""
    return "---\n".join(
        yaml.dump(_plain(each), Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True) for each in documents
    )


def _plain(value: Any) -> Any:
    """Tuples and read-only mappings as what YAML knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
