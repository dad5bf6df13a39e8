"""Streaming requests through the gateway, timed to the first token; the answer's header says which version served it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Sample:
    """One request. `version` is empty where nothing answered; times in seconds."""

    version: str
    ok: bool
    first_token_seconds: float | None
    error: str = ""


def ask(
    client: httpx.Client, url: str, model: str, messages: Messages, version_header: str, max_tokens: int = 4
) -> Sample:
    """One streamed chat completion; every way it can fail is a sample with ok=False."""
    body = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0, "stream": True}
    began = time.perf_counter()
    first: float | None = None
    finished = failed = False
    version = ""
    try:
        with client.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers={"x-liftlock-purpose": "canary"}
        ) as answer:
            version = answer.headers.get(version_header, "")
            if answer.status_code != 200:
                return Sample(version, False, None, f"HTTP {answer.status_code}: {answer.read()[:200]!r}")
            for line in answer.iter_lines():
                if first is None and line.startswith("data: ") and '"content"' in line:
                    first = time.perf_counter() - began
                failed = failed or line.startswith('data: {"error"')  # vLLM sends [DONE] after it all the same
                finished = finished or line == "data: [DONE]"
    except httpx.HTTPError as error:
        return Sample(version, False, first, f"{type(error).__name__}: {error}")
    if failed:
        return Sample(version, False, first, "the engine failed in the middle of the stream")
    return Sample(version, finished, first, "" if finished else "the stream ended early")


class Traffic:
    """Requests from a pool of prompts, `concurrency` at a time, in the background between start and stop.

    A request that does not answer within `patience` seconds has failed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompts: Sequence[Messages],
        version_header: str,
        concurrency: int = 4,
        patience: float = 60,
    ) -> None:
        self.url, self.model, self.version_header, self.concurrency = url, model, version_header, concurrency
        self.patience = patience
        self._prompts: Iterator[Messages] = itertools.cycle(prompts)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._samples: list[Sample] = []

    def samples(self) -> list[Sample]:
        """Those answered since the start, in order of their end."""
        with self._lock:
            return list(self._samples)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Requests are sent while the block runs; those under way at its end are not waited for."""
        self._stop, self._samples = threading.Event(), []
        for _ in range(self.concurrency):
            threading.Thread(target=self._send, args=(self._stop, self._samples), daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()

    def _send(self, stop: threading.Event, samples: list[Sample]) -> None:
        with httpx.Client(timeout=self.patience) as client:
            while not stop.is_set():
                with self._lock:
                    messages = next(self._prompts)
                sample = ask(client, self.url, self.model, messages, self.version_header)
                with self._lock:
                    samples.append(sample)


def warm_up(
    engine_url: str,
    engine_model: str,
    prompts: Sequence[Messages],
    count: int,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[float, ...]:
    """`count` requests straight to the engine before any weight; returns first-token seconds in order.

    `stop` is asked before each; where it says yes, fewer are sent. Raises WarmUpFailed on the first failure.
    """
    times: list[float] = []
    with httpx.Client(timeout=120) as client:
        for messages in itertools.islice(itertools.cycle(prompts), count):
            if stop():
                break
            sample = ask(client, engine_url, engine_model, messages, "")
            if not sample.ok or sample.first_token_seconds is None:
                raise WarmUpFailed(
                    f"the engine at {engine_url} did not answer as {engine_model} while warming up: {sample.error or 'no token came'}"
                )
            times.append(sample.first_token_seconds)
    return tuple(times)


class WarmUpFailed(Exception):
    """The candidate cannot be asked; it gets no weight."""
