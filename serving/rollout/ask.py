"""One streamed chat completion, timed and read: who answered, first token, length, and how it ended."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.rollout.model import Sample

Messages = Sequence[dict[str, str]]
PURPOSE = {"x-liftlock-purpose": "canary"}  # replayed requests are marked, so that nobody is billed for them
MAX_TOKENS = 8
REFUSAL = re.compile(
    r"\W*(i.?m sorry|i am sorry|sorry\b|i can.?t\b|i cannot\b|i am unable|i.?m unable|as an ai\b)", re.IGNORECASE
)


@dataclass
class Answer:
    """What has arrived of one stream. `first` is seconds from the request to the first text."""

    began: float
    first: float | None = None
    served: str = ""
    finish: str = ""
    chunks: int = 0
    counted: int | None = None
    text: list[str] = field(default_factory=list)
    failed: bool = False
    done: bool = False

    def take(self, line: str) -> None:
        """One line of the event stream."""
        if not line.startswith("data: "):
            return
        if line == "data: [DONE]":
            self.done = True
            return
        try:
            event = json.loads(line[6:])
        except ValueError:
            event = None
        if not isinstance(event, dict) or "error" in event:  # vLLM sends [DONE] after an error all the same
            self.failed = True
            return
        self._chunk(event)

    def _chunk(self, event: dict[str, Any]) -> None:
        self.served = str(event.get("model") or self.served)
        self.counted = (event.get("usage") or {}).get("completion_tokens", self.counted)
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self.finish = choice.get("finish_reason") or self.finish
            if "content" not in delta:
                continue
            if self.first is None:
                self.first = time.perf_counter() - self.began
            if delta["content"]:
                self.chunks += 1
                self.text.append(delta["content"])

    def sample(self, version: str, error: str = "") -> Sample:
        said = "".join(self.text).strip()
        if not error and self.failed:
            error = "the engine failed in the middle of the stream"
        elif not error and not self.done:
            error = "the stream ended early"
        return Sample(
            version, not error, self.first, error, self.served, time.perf_counter() - self.began,
            self.chunks if self.counted is None else self.counted, self.finish, not said, bool(REFUSAL.match(said)),
        )  # fmt: skip


def ask(
    client: httpx.Client, url: str, model: str, messages: Messages, version_header: str, max_tokens: int = MAX_TOKENS
) -> Sample:
    """Every way it can fail is a sample with ok=False.""" ""
    return answered(client, url, model, messages, version_header, max_tokens)[0]


def answered(
    client: httpx.Client, url: str, model: str, messages: Messages, version_header: str, max_tokens: int = MAX_TOKENS
) -> tuple[Sample, str]:
    """The same with the text of the answer."""
    body = {
        "model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    answer, version = Answer(time.perf_counter()), ""
    try:
        with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=PURPOSE) as response:
            version = response.headers.get(version_header, "")
            if response.status_code != 200:
                said = f"HTTP {response.status_code}: {response.read()[:200]!r}"
                return answer.sample(version, said), ""
            for line in response.iter_lines():
                answer.take(line)
    except httpx.HTTPError as error:
        return answer.sample(version, f"{type(error).__name__}: {error}"), ""
    return answer.sample(version), "".join(answer.text).strip()
