"""Golden prompts: what a version answered when it was evaluated, kept with its release, against what it answers where it serves.

Another adapter, a wrong base or a broken kernel can give answers that are well-formed, quick and wrong. They are asked the
same way both times: temperature 0, MAX_TOKENS tokens. A few may differ, because the arithmetic depends on the batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from serving.rollout.ask import Messages, answered
from serving.rollout.model import Sample

GOLDEN = 16  # prompts of a release
AT_ONCE = 4
MOST_DIFFERENT = 0.25  # share of the golden prompts; another adapter answers most of them otherwise
PATIENCE_SECONDS = 120


class GoldenUnanswered(Exception):
    """A version does not answer while its golden answers are recorded or compared."""


@dataclass(frozen=True)
class Golden:
    """A prompt of the suite, and the text that the version answered when it was evaluated."""

    messages: tuple[dict[str, str], ...]
    answer: str


@dataclass(frozen=True)
class Compared:
    """`same` of `total` answers are those on record; `example` is the first other one, for people."""

    same: int
    total: int
    example: str = ""

    @property
    def good(self) -> bool:
        return self.total - self.same <= MOST_DIFFERENT * self.total

    @property
    def said(self) -> str:
        told = f"{self.same} of {self.total} golden prompts are answered as on the release's record"
        return f"{told}; {self.example}" if self.example else told


def key_of(messages: Messages) -> str:
    """By which the answer to a prompt is looked up."""
    return json.dumps(list(messages), sort_keys=True)


def record(engine_url: str, engine_model: str, prompts: Sequence[Messages]) -> tuple[Golden, ...]:
    """Raises GoldenUnanswered."""
    texts = _texts(engine_url, engine_model, prompts)
    return tuple(Golden(tuple(one), text) for one, text in zip(prompts, texts, strict=True))


def compare(
    engine_url: str, engine_model: str, golden: Sequence[Golden], headers: Mapping[str, str] | None = None
) -> Compared:
    """`headers`, such as a key, go with each. Raises GoldenUnanswered."""
    texts = _texts(engine_url, engine_model, [one.messages for one in golden], headers)
    other = [(one.answer, text) for one, text in zip(golden, texts, strict=True) if one.answer != text]
    example = f"on record {other[0][0][:60]!r}, answered {other[0][1][:60]!r}" if other else ""
    return Compared(len(golden) - len(other), len(golden), example)


def _texts(
    engine_url: str, engine_model: str, prompts: Sequence[Messages], headers: Mapping[str, str] | None = None
) -> list[str]:
    with httpx.Client(timeout=PATIENCE_SECONDS, headers=headers) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda one: answered(client, engine_url, engine_model, one, ""), prompts))
    failed: Sample | None = next((sample for sample, _ in found if not sample.ok), None)
    if failed:
        raise GoldenUnanswered(
            f"{engine_model} at {engine_url} does not answer its golden prompts: {failed.error}; look at the engine's log"
        )
    return [text for _, text in found]
