"""The local delivery target: one engine, adapters found by name in its folder, the gateway splits by rewriting the name."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from serving.engine import unload_adapter
from serving.gateway.envoy import Split
from serving.gateway.state import Gateway

DRAIN_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class LocalTarget:
    """`adapters` is the folder the engine finds adapters in; None: candidates stay where they are."""

    gateway: Gateway
    adapters: Path | None = None

    def stable(self, model: str) -> str:
        """The engine's name of what serves `model` now; the base model where it was never released."""
        split = self.gateway.splits().get(model)
        return split.stable if split else self.gateway.base_model

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        self.gateway.set_weight(model, candidate, weight)

    def promote(self, model: str, candidate: str) -> None:
        self.gateway.set_stable(model, candidate)

    def restore(self, model: str, stable: str) -> None:
        """All of the traffic to `stable`, whatever the split was."""
        if self.gateway.splits().get(model) != Split(model, stable):
            self.gateway.change(
                model, lambda split: replace(split or Split(model, stable), stable=stable, candidate=None, weight=0)
            )

    def drain(self, model: str, seconds: float) -> bool:
        """Until no request of the candidate runs, at most `seconds`; says whether they all ended."""
        deadline = time.monotonic() + seconds
        while self.gateway.running(model, "candidate"):
            if time.monotonic() > deadline:
                return False
            time.sleep(DRAIN_POLL_SECONDS)
        return True

    def remove(self, candidate: str) -> None:
        """Out of the engine and out of its folder, so that a restarted engine does not know it either."""
        if any(candidate == split.stable for split in self.gateway.splits().values()):
            return
        if self.adapters is not None:
            shutil.rmtree(self.adapters / candidate, ignore_errors=True)
        unload_adapter(self.gateway.engine_url, candidate)
