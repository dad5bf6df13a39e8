"""Where one request went: its line in the gateway's access log, and what the engine wrote about it. Reads files only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{3,127}")
ENGINE_PREFIX = re.compile(r"^(chatcmpl|cmpl|embd)-")  # what vLLM puts before the request's id in an answer's id

ENGINE_ID = (
    r"(?<![\w.:-])(?:(?:chatcmpl|cmpl|embd)-)?%s(?:-\d+)?(?:-[0-9a-f]{8})?(?![\w.-]|:\w)"  # with what vLLM appends
)


class NotTraced(Exception):
    """No hop knows the id."""


@dataclass(frozen=True)
class Hop:
    """One place that saw the request. `fields` are those of the access log; `text` is a line of another log."""

    place: str
    file: str
    text: str
    fields: dict[str, Any]


def request_id(asked: str) -> str:
    """The id to look for, from a request id, a trace id, a whole traceparent, or the id of an answer. Raises NotTraced."""
    found = ENGINE_PREFIX.sub("", asked.strip())
    parent = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", found)
    found = parent.group(1) if parent else found
    if not ID.fullmatch(found):
        raise NotTraced(f"{asked[:140]!r} is no request id; required: the x-request-id or the traceparent of an answer")
    return found


def trace(asked: str, access_logs: Sequence[Path], engine_logs: Sequence[Path]) -> list[Hop]:
    """Every hop in the order of the path; logs oldest first. Raises NotTraced."""
    wanted = request_id(asked)
    hops = [hop for file in access_logs for hop in _gateway_hops(file, wanted)]
    ids = {wanted, *(str(hop.fields["request_id"]) for hop in hops if hop.fields.get("request_id"))}
    hops += [hop for file in engine_logs for hop in _engine_hops(file, ids)]
    if not hops:
        looked = ", ".join(str(file) for file in (*access_logs, *engine_logs)) or "there are no logs yet"
        raise NotTraced(
            f"no line names {wanted}; looked into: {looked}. The gateway writes its lines after half a second"
        )
    return hops


def _gateway_hops(file: Path, wanted: str) -> Iterator[Hop]:
    for line in _lines(file, {wanted}):
        try:
            fields = json.loads(line)
        except ValueError:  # the line that is being written
            continue
        trace_id = str(fields.get("traceparent") or "")[3:35]
        if wanted in (fields.get("request_id"), trace_id, fields.get("trace_id")):
            yield Hop("gateway", str(file), _sentence(fields), fields)


def _engine_hops(file: Path, ids: set[str]) -> Iterator[Hop]:
    for line in _lines(file, ids):
        if any(re.search(ENGINE_ID % re.escape(one), line) for one in ids):
            yield Hop("engine", str(file), line.strip()[:400], {})


def _lines(file: Path, ids: set[str]) -> Iterator[str]:
    wanted = [one.encode() for one in ids]
    with file.open("rb") as lines:
        for line in lines:
            if any(one in line for one in wanted):
                yield line.decode(errors="replace")


def _sentence(fields: dict[str, Any]) -> str:
    weights = ", ".join(f"{side} {weight:g} %" for side, weight in (fields.get("weights") or {}).items())
    tokens = [fields.get("prompt_tokens"), fields.get("completion_tokens")]
    parts = [
        f"{fields.get('time')} {fields.get('method')} {fields.get('path')}",
        f"client {fields['client']}" if fields.get("client") else "",
        f"asked for {fields.get('model')}, served by {fields.get('version')}" + (f" ({weights})" if weights else ""),
        f"status {fields.get('status')}" + (f" {fields['flags']}" if fields.get("flags") not in (None, "-") else ""),
        _times(fields),
        f"attempts {fields['attempts']}" if (fields.get("attempts") or 0) > 1 else "",
        f"tokens {tokens[0]} in, {tokens[1]} out" if None not in tokens else "",
    ]
    return "; ".join(part for part in parts if part)


def _times(fields: dict[str, Any]) -> str:
    """A stream's headers come before its first token; of a whole answer the first byte is all there is."""
    first = fields.get("first_token_milliseconds")
    said = f"first byte {fields.get('first_byte_milliseconds')} ms" if first is None else f"first token {first} ms"
    return f"{said} of {fields.get('milliseconds')} ms"
