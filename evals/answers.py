"""Answers of one model, kept line by line as they come, so that a run that was cut off asks only what is left. Effect (a file).

One file belongs to one model's bytes in one setting: whoever names the file sees to that. A sampled answer belongs to its
repeat, whose seed it was drawn with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from evals.report import canonical
from evals.suite import is_sampled


class Request(Protocol):
    """lm-eval's request: what is sent, and settings of the answer."""

    args: tuple[Any, ...]


class Answers:
    """What `file` holds; without one, what was answered since. `repeat` is the one that is asked now."""

    repeat = 0

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Any] = {}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._known = dict(_read(file))
            if self._known:
                os.utime(file)  # it is in use, whoever removes old ones

    def __len__(self) -> int:
        return len(self._known)

    def add(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        key = _key(kind, arguments, self.repeat)
        if key in self._known:
            return
        self._known[key] = answer
        if self._file is not None:
            line = json.dumps({"asked": key, "answer": answer}, ensure_ascii=False) + "\n"
            with self._file.open("ab", buffering=0) as out:
                out.write(line.encode())  # one write, so that two writers do not mix their lines

    # the name by which lm-eval's models tell a hook of each answer as it comes
    add_partial = add

    def through(
        self, kind: str, requests: Sequence[Request], ask: Callable[[list[Request]], Sequence[Any]]
    ) -> tuple[list[Any], int]:
        """Answers in the requests' order, asking only what is not known, and how many were known."""
        known = [self._known.get(_key(kind, r.args, self.repeat)) for r in requests]
        left = [request for request, answer in zip(requests, known, strict=True) if answer is None]
        fresh = list(ask(left)) if left else []
        for request, answer in zip(left, fresh, strict=True):
            self.add(kind, request.args, answer)
        rest = iter(fresh)
        return [next(rest) if answer is None else _as_asked(answer) for answer in known], len(requests) - len(left)


def _key(kind: str, arguments: Sequence[Any], repeat: int) -> str:
    told = [argument if isinstance(argument, dict) else str(argument) for argument in arguments]
    asked = [kind, told, repeat] if _is_sampled(arguments) else [kind, told]
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def _is_sampled(arguments: Sequence[Any]) -> bool:
    return any(isinstance(argument, dict) and is_sampled(argument) for argument in arguments)


def _as_asked(answer: Any) -> Any:
    """A log-likelihood is a pair."""
    return tuple(answer) if isinstance(answer, list) else answer


def _read(file: Path) -> list[tuple[str, Any]]:
    """A line that a kill cut off is taken out, so that the next one does not continue it."""
    if not file.exists():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(file, len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return [(row["asked"], row["answer"]) for row in rows]
