"""Shadow traffic: the candidate gets a copy of clients' requests, its answers are dropped, and no client can meet one.

The gateway counts how the copies ended. How fast and how well both versions answer under that load is measured with the suite's
prompts, each asked of one of them, drawn at random: the same evidence as in a canary, before the first weight.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import numpy as np

from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import Messages, answered
from serving.rollout.bets import bets_on_limit
from serving.rollout.comparison import Comparison
from serving.rollout.findings import EventSide, finding_of_limit
from serving.rollout.golden import Golden, key_of
from serving.rollout.metrics import NAMED
from serving.rollout.model import Finding, Sample
from serving.rollout.traffic import Traffic

DRAWN = 50  # percent of the prompts that the candidate is asked
FAILED = (
    "upstream_rq_5xx",
    "upstream_rq_404",
    "upstream_rq_timeout",
    "upstream_rq_rx_reset",
    "upstream_rq_pending_failure_eject",
)


@dataclass(frozen=True)
class Shadow:
    """`counters` are the gateway's of the copies; `since` those at the beginning of the step. `comparison` is the eval gate's."""

    traffic: Traffic
    counters: Callable[[], Mapping[str, int]]
    comparison: Comparison | None = None

    @property
    def comparing(self) -> bool:
        return self.comparison is not None and self.comparison.running

    @property
    def news(self) -> int:
        return self.comparison.news if self.comparison else 0

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Prompts are drawn while the block runs, and a comparison does not outlive it."""
        with self.traffic.flowing(0):
            try:
                yield
            finally:
                if self.comparison:
                    self.comparison.stop()

    def counted(self, since: Mapping[str, int]) -> tuple[int, int]:
        """(copies that ended, those of them that failed)."""
        now = self.counters()
        ended = now.get("upstream_rq_completed", 0) - since.get("upstream_rq_completed", 0)
        failed = sum(now.get(name, 0) - since.get(name, 0) for name in FAILED)
        return max(ended, failed), failed


def shadow_finding(ended: int, failed: int, policy: AnalysisPolicy) -> Finding:
    """Failed copies against the failures that are allowed, at whatever request one looks; failures count first."""
    events = np.repeat([1.0, 0.0], [failed, ended - failed])
    wealth = bets_on_limit(events, np.ones(ended, dtype=bool), policy.max_error_rate)
    odds = float(np.exp(min(wealth[-1], 27.0))) if ended else 1.0
    found = finding_of_limit(
        NAMED["errors"], EventSide(failed, ended), policy.max_error_rate, 0, odds, policy.steps / policy.alpha
    )
    note = (
        f"{failed} of {ended} copies of clients' requests failed at the candidate, allowed {policy.max_error_rate:.1%}"
    )
    return replace(found, metric="shadow_errors", note=note)


class Drawn(Traffic):
    """Each prompt is asked of one version, drawn at random, straight at its engine. `sides`: (engine's name, engine's address)."""

    def __init__(
        self,
        stable: tuple[str, str],
        candidate: tuple[str, str],
        prompts: Sequence[Messages],
        golden: Sequence[Golden] = (),
        headers: Mapping[str, str] | None = None,
        rate: float = 80,
    ) -> None:
        super().__init__("", "", prompts, "", headers=headers, rate=rate, golden=golden)
        self.sides = (stable, candidate)

    def side(self) -> tuple[str, str]:
        """Whom the next request asks."""
        return random.choice(self.sides)

    def _ask(self, client: httpx.Client, messages: Messages) -> Sample:
        name, url = self.side()
        sample, text = answered(client, url, name, messages, "")
        recorded = self._golden.get(key_of(messages))
        return replace(sample, version=name, different=None if recorded is None else text != recorded)
