"""Warm-up: a candidate is ready when it has answered the suite's own prompts, short and long, within its first-token budget.

An engine that says it is healthy may still have to load the adapter, compile, and capture graphs: the first answers pay for that.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import httpx

from serving.rollout.ask import Messages, ask
from serving.rollout.golden import MOST_DIFFERENT, Golden, GoldenUnanswered, compare

MOST_ROUNDS = 25  # times `count` requests without meeting the budget: it never will


class WarmUpFailed(Exception):
    """The candidate cannot be asked, or stays too slow; it gets no weight."""


@dataclass(frozen=True)
class WarmUp:
    """`first_tokens` in seconds, in order; `load_seconds` until the first answer, `warm_seconds` from there to readiness.

    `golden`: so many golden prompts were answered as on record, of so many.
    """

    first_tokens: tuple[float, ...]
    load_seconds: float
    warm_seconds: float
    golden: tuple[int, int] = (0, 0)


def short_and_long(prompts: Sequence[Messages]) -> list[Messages]:
    """The shortest, the longest, the next shortest, and so on."""
    rising = sorted(prompts, key=lambda messages: sum(len(one["content"]) for one in messages))
    pairs = itertools.zip_longest(rising[: (len(rising) + 1) // 2], reversed(rising[(len(rising) + 1) // 2 :]))
    return [one for pair in pairs for one in pair if one is not None]


def warm_up(
    engine_url: str,
    engine_model: str,
    prompts: Sequence[Messages],
    count: int,
    budget: float = inf,
    stop: Callable[[], bool] = lambda: False,
    headers: Mapping[str, str] | None = None,
) -> WarmUp:
    """Requests straight to the engine until `count` in a row had their first token within `budget` seconds.

    `headers`, such as a key, go with each. `stop` is asked before each; where it says yes, fewer are sent. Raises
    WarmUpFailed on the first failure, and where the budget is not met in MOST_ROUNDS x count requests.
    """
    times: list[float] = []
    began, loaded = time.monotonic(), 0.0
    with httpx.Client(timeout=120, headers=headers) as client:
        for messages in itertools.islice(itertools.cycle(short_and_long(prompts)), MOST_ROUNDS * count):
            if stop() or (len(times) >= count and max(times[-count:]) <= budget):
                break
            times.append(_first_token(client, engine_url, engine_model, messages))
            loaded = loaded or time.monotonic() - began
        else:
            if max(times[-count:]) > budget:
                raise WarmUpFailed(
                    f"{engine_model} is not warm after {len(times)} requests: first token {max(times[-count:]):.2f} s among the "
                    f"last {count}, required at most {budget:.2f} s; raise delivery.warmup_first_token_seconds or look at the engine"
                )
    return WarmUp(tuple(times), loaded, time.monotonic() - began - loaded)


def with_golden(
    found: WarmUp,
    engine_url: str,
    engine_model: str,
    golden: Sequence[Golden],
    headers: Mapping[str, str] | None = None,
) -> WarmUp:
    """A warm candidate must answer as it did when it was evaluated. Raises WarmUpFailed."""
    try:
        compared = compare(engine_url, engine_model, golden, headers)
    except GoldenUnanswered as error:
        raise WarmUpFailed(str(error)) from None
    if not compared.good:
        raise WarmUpFailed(
            f"{engine_model} is not the version that was evaluated: {compared.said}; required: at least "
            f"{1 - MOST_DIFFERENT:.0%}. Look at the engine's base model and at the adapter's folder"
        )
    return replace(found, golden=(compared.same, compared.total))


def _first_token(client: httpx.Client, engine_url: str, engine_model: str, messages: Messages) -> float:
    sample = ask(client, engine_url, engine_model, messages, "")
    if not sample.ok or sample.first_token_seconds is None:
        raise WarmUpFailed(
            f"the engine at {engine_url} did not answer as {engine_model} while warming up: {sample.error or 'no token came'}"
        )
    return sample.first_token_seconds
