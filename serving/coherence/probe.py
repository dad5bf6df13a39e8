"""The live probe: a running chain whose upstream is the probe's own, observed against what its files declare.

It asks once for each kind: an upstream that is silent (whole and streamed), refuses, is slow, dies in mid-stream; and a client that leaves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from serving.coherence.model import Chain
from serving.coherence.probe_engine import Upstream
from serving.coherence.worst import amplification, silent_seconds

CANCEL_SECONDS = 5.0  # after a client has left, its request at the upstream should be gone
TOLERANCE, LEAST_SECONDS = 0.10, 1.0  # what observed and declared times may differ by: the larger of the two
HELLO = "probe: answer"


def _slack(declared: float) -> float:
    return max(TOLERANCE * declared, LEAST_SECONDS)


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
class Probe:
    """Where to ask, and as whom."""

    url: str
    model: str
    key: str | None
    upstream: Upstream
    chain: Chain | None
    patience: float  # the probe's own limit

    def all(self) -> list[Observed]:
        """Raises ProbeFailed where a plain request does not arrive at the upstream."""
        self._hello()
        return [
            self._silent(False), self._silent(True), self._refused(), self._slow(), self._dies(), self._leaves(False), self._leaves(True),
        ]  # fmt: skip

    def _hello(self) -> None:
        began = time.monotonic()
        _, outcome = self._ask(HELLO, False, self.patience)
        if outcome != "200" or not self.upstream.since(began):
            raise ProbeFailed(
                f"a plain request to {self.url} for {self.model!r} ended with {outcome} and {len(self.upstream.since(began))} requests at "
                f"{self.upstream.url}; point the model's api_base (or its route's last hop) there for the probe"
            )

    def _silent(self, stream: bool) -> Observed:
        began = time.monotonic()
        spent, outcome = self._ask("probe: silent", stream, self.patience)
        hops = self.chain.hops[1:] if self.chain else ()
        declared = silent_seconds(hops, stream) if self.chain else None
        seen = len(self.upstream.since(began))
        agrees = declared is None or abs(spent - declared) <= _slack(declared) or (declared > self.patience <= spent)
        return Observed(f"silent, {'streamed' if stream else 'whole'}", spent, seen, outcome, declared, None, agrees)

    def _refused(self) -> Observed:
        began = time.monotonic()
        spent, outcome = self._ask("probe: refuses", False, self.patience)
        seen = len(self.upstream.since(began))
        declared = amplification(self.chain.hops[1:]) if self.chain else None
        return Observed("refuses", spent, seen, outcome, None, declared, declared in (None, seen))

    def _slow(self) -> Observed:
        """A chunk a second: only limits on the whole exchange end it."""
        began = time.monotonic()
        spent, outcome = self._ask("probe: slow", True, self.patience)
        limits = [
            at.value
            for hop in (self.chain.hops[1:] if self.chain else ())
            if (at := hop.streaming.longest()).value is not None
        ]
        declared = min(limits) if limits else None
        if declared is not None and declared < self.patience:
            agrees = abs(spent - declared) <= TOLERANCE * declared + 1  # it is cut between two chunks
        else:
            agrees = outcome == "gave up" or self.chain is None
        return Observed("slow stream", spent, len(self.upstream.since(began)), outcome, declared, 1, agrees)

    def _dies(self) -> Observed:
        """Retries after the first byte would be a second request."""
        began = time.monotonic()
        spent, outcome = self._ask("probe: dies", True, self.patience)
        seen = len(self.upstream.since(began))
        return Observed("dies in mid-stream", spent, seen, outcome, None, 1, seen == 1)

    def _leaves(self, stream: bool) -> Observed:
        """How long the upstream works on for a client that left after 1 s."""
        began = time.monotonic()
        self._ask("probe: slow" if stream else "probe: silent", stream, 1.0)
        left = time.monotonic()
        while self._alive(began) and time.monotonic() < left + CANCEL_SECONDS * 2:
            time.sleep(0.1)
        seen, gone = self.upstream.since(began), not self._alive(began)
        spent = time.monotonic() - left
        outcome = "the upstream was told" if gone else "the upstream still works"
        return Observed(
            f"client leaves, {'streamed' if stream else 'whole'}",
            spent,
            len(seen),
            outcome,
            CANCEL_SECONDS,
            1,
            gone and len(seen) == 1,
        )

    def _alive(self, began: float) -> bool:
        return any(each.ended is None for each in self.upstream.since(began))

    def _ask(self, text: str, stream: bool, patience: float) -> tuple[float, str]:
        body: dict[str, Any] = {"model": self.model, "stream": stream, "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        began = time.monotonic()
        deadline = began + patience
        try:
            with (
                httpx.Client(timeout=httpx.Timeout(patience), trust_env=False) as client,
                client.stream("POST", f"{self.url.rstrip('/')}/chat/completions", json=body, headers=headers) as answer,
            ):
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
