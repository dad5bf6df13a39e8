"""The local delivery target: one engine, adapters found by name in its folder, the gateway splits by rewriting the name."""

from __future__ import annotations

from dataclasses import dataclass

from serving.gateway.state import Gateway


@dataclass(frozen=True)
class LocalTarget:
    gateway: Gateway

    def stable(self, model: str) -> str:
        """The engine's name of what serves `model` now; the base model where it was never released."""
        split = self.gateway.splits().get(model)
        return split.stable if split else self.gateway.base_model

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        self.gateway.set_weight(model, candidate, weight)

    def promote(self, model: str, engine_model: str) -> None:
        self.gateway.set_stable(model, engine_model)
