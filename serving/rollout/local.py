"""The local delivery target. Strategy adapter: one engine, and the gateway splits by rewriting the name. Strategy pool: the candidate
has an engine of its own, and the gateway splits over both."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from serving.engine import unload_adapter
from serving.gateway.drain import drained
from serving.gateway.envoy import Split
from serving.gateway.state import Gateway


@dataclass(frozen=True)
class LocalTarget:
    """`adapters` is the folder the engine finds adapters in; None: candidates stay where they are.

    `candidate_engine` is the address of the candidate's own engine (strategy pool); None: the gateway's engine serves both.
    `sticky` names the request header whose value decides the version. With `mirror` a step of weight 0 copies so many percent of the
    requests to the candidate.
    """

    gateway: Gateway
    adapters: Path | None = None
    candidate_engine: str | None = None
    sticky: str | None = None
    mirror: int = 0

    def stable(self, model: str) -> str:
        """The engine's name of what serves `model` now; the base model where it was never released."""
        split = self.gateway.splits().get(model)
        return split.stable if split else self.gateway.base_model

    def place(self, model: str, candidate: str) -> None:
        """The verified adapter lies in the engine's folder, or the candidate's engine runs, before the rollout begins."""

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        engine = self.candidate_engine if candidate else None
        if candidate and not weight and self.mirror:
            self.gateway.set_mirror(model, candidate, self.mirror, engine)
            return
        self.gateway.set_weight(model, candidate, weight, engine, self.sticky if candidate else None)

    def promote(self, model: str, candidate: str) -> None:
        self.gateway.set_stable(model, candidate, self.candidate_engine)

    def restore(self, model: str, stable: str) -> None:
        """All of the traffic to `stable`, whatever the split was."""

        def edit(split: Split | None) -> Split:
            whole = split or Split(model, stable)
            return replace(
                whole,
                stable=stable,
                candidate=None,
                weight=0,
                candidate_engine=None,
                sticky=None,
                closed=None,
                mirror=0,
            )

        split = self.gateway.splits().get(model)
        if split is None or split != edit(split):
            self.gateway.change(model, edit)

    def drain(self, model: str, seconds: float) -> bool:
        """Until the candidate has no request left, at most `seconds`; says whether they all ended."""
        return drained(self.gateway, [(model, "candidate", self.candidate_engine)], seconds)

    def remove(self, candidate: str) -> None:
        """Out of the engine and out of its folder, so that a restarted engine does not know it either."""
        if any(candidate == split.stable for split in self.gateway.splits().values()):
            return
        if self.adapters is not None:
            shutil.rmtree(self.adapters / candidate, ignore_errors=True)
        unload_adapter(self.candidate_engine or self.gateway.engine_url, candidate)
