"""The live probe: a running chain whose upstream is the probe's own, observed against what its files declare.

It asks once for each kind: an upstream that refuses, and one that dies in mid-stream; then, all at the same time, one that is silent (whole and
streamed) or slow, and a client that leaves. Beside these goes a plain request each second. Its longest time is what the chain itself takes on this
machine just now, which no file declares; each request at the upstream may take that much longer. What a proxy does once, at its first answer
and its first error, is behind it when times are taken.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import httpx

from serving.coherence.model import Chain, Hop
from serving.coherence.probe_engine import Upstream
from serving.coherence.worst import amplification, silent_seconds

CANCEL_SECONDS = 5.0  # after a client has left, its request at the upstream should be gone
LEAVES_AFTER_SECONDS = 1.0
TOLERANCE = 0.10
ONE_EACH = httpx.Limits(max_keepalive_connections=0)  # a connection for each request, as of another client


class ProbeFailed(Exception):
    """The chain does not lead to the probe's upstream."""


@dataclass(frozen=True)
class Observed:
    """One kind of upstream: what was seen, what was declared. None: nothing was declared about it."""

    kind: str
    seconds: float
    requests: int
    outcome: str
    declared_seconds: float | None
    declared_requests: int | None
    agrees: bool


@dataclass(frozen=True)
class Timed:
    """A row whose time is judged when it is known how long a plain request took meanwhile. `least` is the declared time without jitter."""

    row: Observed
    least: float
    most: float

    def judged(self, late: float) -> Observed:
        allowed = (1 + TOLERANCE) * self.most + self.row.requests * late
        return replace(self.row, agrees=self.row.agrees and (1 - TOLERANCE) * self.least <= self.row.seconds <= allowed)


Kind = Callable[[], Timed]


@dataclass
class Plain:
    """Plain requests through the chain, one a second."""

    count: int = 0
    longest: float = 0.0


@dataclass(frozen=True)
class Probe:
    """Where to ask, and as whom."""

    url: str
    model: str
    key: str | None
    upstream: Upstream
    chain: Chain
    patience: float  # the probe's own limit
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, limits=ONE_EACH))

    def all(self) -> list[Observed]:
        """A row that disagrees is looked at once more. Raises ProbeFailed where a plain request does not arrive at the upstream."""
        for stream in (False, True):
            self._hello(stream)
        first = [self._refused(), self._dies()]
        kinds: tuple[Kind, ...] = (
            lambda: self._silent(False), lambda: self._silent(True), self._slow, lambda: self._leaves(False), lambda: self._leaves(True),
        )  # fmt: skip
        rows, again = self._together(kinds), []
        if doubtful := [place for place, row in enumerate(rows[:-1]) if not row.agrees]:
            again = self._together([kinds[place] for place in doubtful])
        for place, row in zip(doubtful, again, strict=False):
            rows[place] = replace(row, outcome=f"{row.outcome}, at the second look")
        return [*first, *rows]

    def _together(self, kinds: Sequence[Kind]) -> list[Observed]:
        """Their rows, and one of the plain requests beside them."""
        plain, over = Plain(), threading.Event()
        beside = threading.Thread(target=self._ask_plainly, args=(plain, over), daemon=True)
        beside.start()
        try:
            with ThreadPoolExecutor(_at_once(self.hops, len(kinds))) as pool:
                timed = [each.result() for each in [pool.submit(kind) for kind in kinds]]
        finally:
            over.set()
            beside.join(self.patience)
        row = Observed("plain, beside them", plain.longest, plain.count, "the longest", None, None, True)
        return [*(each.judged(plain.longest) for each in timed), row]

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Behind the client, which the probe is."""
        return self.chain.hops[1:]

    def _hello(self, stream: bool) -> None:
        tag, (_, outcome) = self._asked("answer", stream)
        if outcome != "200" or not self.upstream.of(tag):
            raise ProbeFailed(
                f"a plain request to {self.url} for {self.model!r} ended with {outcome} and {len(self.upstream.of(tag))} requests at "
                f"{self.upstream.url}; point the model's api_base (or its route's last hop) there for the probe"
            )

    def _ask_plainly(self, plain: Plain, over: threading.Event) -> None:
        while not over.is_set():
            _, (spent, _) = self._asked("answer", False)
            plain.longest = max(plain.longest, spent)
            plain.count += 1
            over.wait(1.0)

    def _refused(self) -> Observed:
        tag, (spent, outcome) = self._asked("refuses", False)
        seen, declared = len(self.upstream.of(tag)), amplification(self.hops)
        return Observed("refuses", spent, seen, outcome, None, declared, declared == seen)

    def _dies(self) -> Observed:
        """Retries after the first byte would be a second request."""
        tag, (spent, outcome) = self._asked("dies", True)
        seen = len(self.upstream.of(tag))
        return Observed("dies in mid-stream", spent, seen, outcome, None, 1, seen == 1)

    def _silent(self, stream: bool) -> Timed:
        tag, (spent, outcome) = self._asked("silent", stream)
        declared, seen = silent_seconds(self.hops, stream), len(self.upstream.of(tag))
        least = silent_seconds(tuple(replace(hop, jitter=0.0) for hop in self.hops), stream)
        row = Observed(
            f"silent, {'streamed' if stream else 'whole'}", spent, seen, outcome, _finite(declared), None, True
        )
        return Timed(row, min(least, self.patience), declared)

    def _slow(self) -> Timed:
        """A chunk a second: only limits on the whole exchange end it, or the probe's patience.

        The end is taken at the upstream: Envoy closes a stream that it cut a second later (delayed_close_timeout).
        """
        tag, (spent, outcome) = self._asked("slow", True)
        limits = (hop.streaming.longest().value for hop in self.hops)
        declared = min((each for each in limits if each is not None), default=math.inf)
        asked = self.upstream.of(tag)
        _until(lambda: all(each.ended for each in asked), LEAVES_AFTER_SECONDS)
        spent = max((each.ended - each.at for each in asked if each.ended), default=spent)
        seen = len(asked)
        row = Observed("slow stream", spent, seen, outcome, _finite(declared), 1, seen == 1)
        return Timed(row, min(declared, self.patience), declared)

    def _leaves(self, stream: bool) -> Timed:
        """Whether the upstream works on, or gets another try, for a client that left a second after its request had arrived there."""
        tag, body = self._body("slow" if stream else "silent", stream)
        with closing(self._connection()) as connection:
            connection.request("POST", self._path(), json.dumps(body), self._headers())
            _until(lambda: bool(self.upstream.of(tag)), self.patience)
            time.sleep(LEAVES_AFTER_SECONDS)
        left, told = time.monotonic(), all(hop.tells(stream) for hop in self.hops)
        window = (
            CANCEL_SECONDS if told else 2 * CANCEL_SECONDS
        )  # a try may end by its own limit; the next one comes later
        time.sleep(window)
        seen = self.upstream.of(tag)
        ended = [each.ended for each in seen]
        gone = len(seen) == 1 and None not in ended
        spent = max((each - left for each in ended if gone and each is not None), default=window)
        outcome = "the upstream was told" if gone else "the upstream still works"
        row = Observed(
            f"client leaves, {'streamed' if stream else 'whole'}", max(0.0, spent), len(seen), outcome,
            CANCEL_SECONDS if told else None, 1 if told else None, gone or not told,
        )  # fmt: skip
        return Timed(row, 0.0, math.inf)

    def _body(self, kind: str, stream: bool) -> tuple[str, dict[str, Any]]:
        """With a tag by which the upstream's record is found again."""
        tag = secrets.token_hex(6)
        messages = [{"role": "user", "content": f"probe: {kind} {tag}"}]
        return tag, {"model": self.model, "stream": stream, "messages": messages}

    def _headers(self) -> dict[str, str]:
        return {"content-type": "application/json", **({"authorization": f"Bearer {self.key}"} if self.key else {})}

    def _path(self) -> str:
        return f"{urlsplit(self.url).path.rstrip('/')}/chat/completions"

    def _connection(self) -> HTTPConnection:
        at = urlsplit(self.url)
        made = HTTPSConnection if at.scheme == "https" else HTTPConnection
        return made(at.hostname or "", at.port, timeout=self.patience)

    def _asked(self, kind: str, stream: bool) -> tuple[str, tuple[float, str]]:
        """The request's tag; seconds and outcome."""
        tag, body = self._body(kind, stream)
        return tag, self._ask(body, stream)

    def _ask(self, body: dict[str, Any], stream: bool) -> tuple[float, str]:
        began = time.monotonic()
        deadline = began + self.patience
        headers, address = self._headers(), f"{self.url.rstrip('/')}/chat/completions"
        try:
            with self.client.stream("POST", address, json=body, headers=headers, timeout=self.patience) as answer:
                whole = b""
                for data in answer.iter_raw():
                    whole += data
                    if time.monotonic() >= deadline:
                        return time.monotonic() - began, "gave up"
                finished = not stream or answer.status_code != 200 or b"[DONE]" in whole
                return time.monotonic() - began, str(answer.status_code) if finished else "cut"
        except httpx.ReadTimeout:
            return time.monotonic() - began, "gave up"
        except httpx.HTTPError as error:
            return time.monotonic() - began, f"cut: {type(error).__name__}"


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds


def _at_once(hops: tuple[Hop, ...], kinds: int) -> int:
    """As many as the tightest queue takes, with one place for the plain requests."""
    limits = [int(hop.queue.value) - 1 for hop in hops if hop.queue.value is not None]
    return max(1, min([kinds, *limits]))


def _until(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()
