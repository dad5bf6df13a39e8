"""Clients' own requests of a step, read from the gateway's access log as it grows. Effect: reads a file.

They are judged beside the replayed ones and never instead of them: who asks nothing gives no evidence. Requests that still run
are not in the log yet; that hides a slow candidate's requests for a while, and never a harmless one's more than stable's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from serving.rollout.model import Sample

OWN_FAULT = {400, 401, 403, 405, 408, 409, 411, 413, 415, 422, 429, 431}  # the client's, or the key's: no version's
GONE = "DC"  # the client hung up


class ClientRequests(Protocol):
    """Where requests of others than the release are read. They may undo a step and never pass one."""

    def start(self, stable: str, candidate: str, weight: int) -> None:
        """Begins a step."""

    def samples(self) -> list[Sample]:
        """Of the step so far."""


@dataclass
class ClientLog:
    """`path` is the access log. `start` begins a step; `samples` gives its requests so far, in the order in which they came in."""

    path: Path
    model: str
    stable: str = ""
    candidate: str = ""
    weight: int = 0
    _file: IO[bytes] | None = None
    _rest: bytes = b""
    _seen: list[tuple[str, Sample]] = field(default_factory=list)

    def start(self, stable: str, candidate: str, weight: int) -> None:
        self.stable, self.candidate, self.weight = stable, candidate, weight
        self._seen, self._rest = [], b""
        self._open(at_end=True)

    def _open(self, at_end: bool) -> None:
        if self._file:
            self._file.close()
        self._file = self.path.open("rb") if self.path.exists() else None
        if self._file and at_end:
            self._file.seek(0, 2)

    def samples(self) -> list[Sample]:
        self._read()
        if self._moved():
            self._open(at_end=False)
            self._read()
        return [sample for _, sample in sorted(self._seen, key=lambda one: one[0])]

    def _moved(self) -> bool:
        """The log was turned over, or is there now."""
        if not self.path.exists():
            return False
        return self._file is None or self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino

    def _read(self) -> None:
        lines = (self._rest + (self._file.read() if self._file else b"")).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if sample := self.sample(row):
                self._seen.append((str(row["time"]), sample))

    def sample(self, row: dict[str, Any]) -> Sample | None:
        """One line as a request of this step; None: of another model, another weight, the release's own, or the client's fault."""
        weights = row.get("weights") or {}
        asked = row.get("model") == self.model and weights.get("candidate") == self.weight
        if not asked or row.get("purpose") or row["status"] in OWN_FAULT or GONE in str(row.get("flags")):
            return None
        version, first, tokens = self._side(row), row.get("first_token_milliseconds"), row.get("completion_tokens")
        if not version:
            return None
        error = _error(row, version)
        return Sample(
            version, not error, None if first is None else first / 1000, error, version, row["milliseconds"] / 1000,
            int(tokens or 0),
        )  # fmt: skip

    def _side(self, row: dict[str, Any]) -> str:
        """The version that was to answer, by the route that was drawn: also where a fallback answered, or nobody."""
        cluster = str(row.get("cluster"))
        sides = ((f"{self.model}-candidate", self.candidate), (f"{self.model}-stable", self.stable))
        return next((name for prefix, name in sides if cluster.startswith(prefix)), "")


def _error(row: dict[str, Any], version: str) -> str:
    if row["status"] != 200:
        return f"status {row['status']} {row.get('flags')}"
    if row.get("flags") not in (None, "-"):
        return f"cut: {row['flags']}"
    return "" if row.get("version") == version else f"answered by {row.get('version')} instead"
