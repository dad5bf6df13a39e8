"""What was read of a cluster, and what is found in it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["missing", "note"]
Object = Mapping[str, Any]
FORBIDDEN, ABSENT, FOUND = 403, 404, 200


class Hidden(Exception):
    """Something cannot be examined, and why has a finding of its own: no right, no such API, no such namespace."""


@dataclass(frozen=True)
class Finding:
    """`check` names what is looked at, `where` the object. `note`: nothing to mend, but good to know."""

    check: str
    where: str
    observed: str
    required: str
    fix: str
    level: Level = "missing"


@dataclass(frozen=True)
class Right:
    """One verb on one resource; `name` where the right is for that object alone, `namespace` empty for the whole cluster."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {resource}{f' {self.name}' if self.name else ''}{place}"


@dataclass(frozen=True)
class Answer:
    """Of one GET: the status, and the document where it is 200."""

    status: int
    body: Object = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """Answers by path, the rights by the API's own judgement, and who asked."""

    answers: Mapping[str, Answer]
    allowed: Mapping[Right, bool]
    user: str = ""

    def get(self, path: str) -> Object | None:
        """The object, or None where it is not there. Raises Hidden."""
        answer = self.answers.get(path)
        if answer is None:
            raise KeyError(f"{path} was not read")
        if answer.status == FOUND:
            return answer.body
        if answer.status == ABSENT and self._place_is_there(path):
            return None
        raise Hidden(path)

    def items(self, path: str) -> tuple[Object, ...]:
        """Of a list. Raises Hidden."""
        return tuple((self.get(path) or {}).get("items") or ())

    def _place_is_there(self, path: str) -> bool:
        """Its kind is served and its namespace exists, as far as these were read."""
        parts = path.strip("/").split("/")
        group = 3 if parts[0] == "apis" else 2
        in_space = parts[group] == "namespaces" and len(parts) > group + 2
        plural = parts[group + 2 if in_space else group]
        served = self.answers.get(f"/{'/'.join(parts[:group])}")
        owner = self.answers.get(f"/api/v1/namespaces/{parts[group + 1]}") if in_space else None
        if owner is not None and owner.status == ABSENT:
            return False
        return served is None or any(one.get("name") == plural for one in served.body.get("resources") or ())


def condition(thing: Object, kind: str) -> Object:
    """The status condition of that type, or an empty one."""
    found = thing.get("status", {}).get("conditions") or ()
    return next((one for one in found if one.get("type") == kind), {})


def is_true(thing: Object, kind: str) -> bool:
    return bool(condition(thing, kind).get("status") == "True")


def said(thing: Object, kind: str) -> str:
    """The condition's own words, for a person."""
    one = condition(thing, kind)
    if not one:
        return f"has no condition {kind}: no controller has looked at it"
    words = " ".join(str(one[key]) for key in ("reason", "message") if one.get(key))
    return f"{kind} is {one.get('status')}{f': {words}' if words else ''}"
