"""Approval by people: what the ledger says of a request. Pure; tasks/approve.py asks, waits and writes.

A request is the line `approval_requested` of a model, an alias and a version. It ends with a denial, with its expiry, or
with the move that it was for; the next move of the same version needs a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.promotion.ledger import Alias, Line

PEOPLE = {"none": 0, "one": 1, "two": 2}


@dataclass(frozen=True)
class Request:
    """An open request, and who approved it so far; `denied` is the line that ended it with a no."""

    line: Line
    by: tuple[str, ...] = ()
    denied: Line | None = None

    @property
    def needed(self) -> int:
        return int(self.line.evidence["needed"])

    @property
    def granted(self) -> bool:
        return self.denied is None and len(self.by) >= self.needed

    def expired(self, now: datetime) -> bool:
        """An approval that was given does not expire; the wait for it does."""
        return self.denied is None and not self.granted and now >= datetime.fromisoformat(self.line.evidence["expires"])

    def names(self, what: str) -> bool:
        """Whether `what` is its model, its run or its Prefect flow run."""
        return what in (self.line.model, self.line.evidence["run"], self.line.evidence.get("flow_run"))


def request_line(
    model: str, alias: Alias, version: str, requester: str, now: datetime, hours: float, evidence: dict[str, str]
) -> Line:
    """`evidence` has `needed`, `run`, `version_sha256` and, in a deployment, `flow_run`."""
    expires = (now + timedelta(hours=hours)).isoformat(timespec="seconds")
    said = f"{evidence['needed']} must approve, until {expires}"
    content = {**evidence, "expires": expires}
    return Line(0, "", model, alias, "approval_requested", None, version, requester, said, content, "")


def requests(lines: Iterable[Line]) -> list[Request]:
    """The last request of each model, alias and version that is open or was denied, oldest first."""
    found: dict[tuple[str, str, str | None], Request] = {}
    for line in lines:
        key = (line.model, line.alias, line.to_version)
        known = found.get(key)
        if line.kind == "approval_requested":
            found[key] = Request(line)
        elif known is None:
            continue
        elif line.kind == "approved" and line.actor != known.line.actor and line.actor not in known.by:
            found[key] = Request(known.line, (*known.by, line.actor), known.denied)
        elif line.kind == "denied":
            found[key] = Request(known.line, known.by, line)
        elif line.kind in ("approval_expired", "move", "rollback"):
            del found[key]
    return list(found.values())


def request_of(lines: Iterable[Line], model: str, alias: Alias, version: str) -> Request | None:
    wanted = (model, alias, version)
    return next(
        (one for one in requests(lines) if (one.line.model, one.line.alias, one.line.to_version) == wanted), None
    )
