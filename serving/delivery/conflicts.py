"""Fields that Liftlock sets and another field manager has taken since. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MANAGER = re.compile(r'conflict with "(?P<manager>[^"]+)"')


@dataclass(frozen=True)
class Conflict:
    """`field` as the API server writes it, such as .spec.replicas."""

    kind: str
    name: str
    field: str
    manager: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.field} was set by {self.manager}, and is Liftlock's again"


def read_conflicts(kind: str, name: str, causes: Iterable[Mapping[str, str]]) -> tuple[Conflict, ...]:
    """Of a refused server-side apply (status 409)."""
    found = []
    for cause in causes:
        if cause.get("reason") == "FieldManagerConflict":
            said = MANAGER.search(cause.get("message", ""))
            found.append(Conflict(kind, name, cause.get("field", ""), said["manager"] if said else "another manager"))
    return tuple(found)
