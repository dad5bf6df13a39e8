"""One model behind the real Envoy, stable at 100 percent, a candidate beside it, and how a test rolls that out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.model import Rollout, Sample, Step
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy

STABLE, CANDIDATE = "canary-stable", "canary-candidate"
PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
# so wide that a busy machine is no reason to undo, and far below what the bad ones do
POLICY = AnalysisPolicy(min_requests=6, max_error_rate=0.1, max_first_token_ratio=8)


@dataclass(frozen=True)
class TurnsBad(LocalTarget):
    """The candidate is good while it warms up, and bad from its first weight on."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    behaviour: Behaviour = field(default_factory=Behaviour)

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        self.engine.requests[CANDIDATE] = 0
        self.engine.models[CANDIDATE] = self.behaviour
        super().weigh(model, candidate, weight)


@dataclass(frozen=True)
class Scene:
    """One model with STABLE at 100 percent, and the engine behind it."""

    envoy: Envoy
    engine: FakeEngine
    model: str
    folder: Path

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.folder / self.model)

    def roll_out(
        self,
        weights: tuple[int, ...] = (10, 50, 100),
        on_step: Callable[[Step], None] = lambda _: None,
        target: LocalTarget | None = None,
        traffic: Traffic | None = None,
        hold_seconds: float = 60,
    ) -> Rollout:
        plan = replace(self.plan(weights), hold_seconds=hold_seconds)
        return roll_out(self.rollouts, plan, target or self.target, traffic or self.traffic, on_step)

    def plan(self, weights: tuple[int, ...]) -> Plan:
        reference = "models/tickets@sha256:0"
        return Plan(
            self.model,
            CANDIDATE,
            reference,
            self.engine.url,
            PROMPTS,
            weights,
            3,
            POLICY,
            hold_seconds=60,
            drain_seconds=5,
        )

    @property
    def target(self) -> LocalTarget:
        return LocalTarget(self.envoy.gateway)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.envoy.url, self.model, PROMPTS, VERSION_HEADER)

    @property
    def split(self) -> Split:
        return self.envoy.gateway.splits()[self.model]

    def assert_stable_alone(self) -> None:
        assert self.split == Split(self.model, STABLE, None, 0)
        assert {self.ask().version for _ in range(10)} == {STABLE}

    def ask(self) -> Sample:
        with httpx.Client(timeout=30) as client:
            return ask(client, self.envoy.url, self.model, PROMPTS[0], VERSION_HEADER)


@pytest.fixture
def scene(envoy: Envoy, engine: FakeEngine, model: str, tmp_path: Path) -> Scene:
    engine.models |= {STABLE: Behaviour(), CANDIDATE: Behaviour()}
    (envoy.gateway.folder / "splits.json").unlink(
        missing_ok=True
    )  # a candidate that other tests promoted is not removed
    envoy.gateway.set_stable(model, STABLE)
    return Scene(envoy, engine, model, tmp_path)
