"""A pipeline in a process of its own, for tests that kill it: python -m tests.rollout_process GATEWAY_JSON ROLLOUTS. Not a test."""

import json
import sys
from pathlib import Path

from serving.gateway.envoy import VERSION_HEADER
from serving.gateway.state import Gateway
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic

PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
POLICY = AnalysisPolicy(min_requests=12, max_error_rate=0.0, max_first_token_ratio=8, steps=2)


def run(gateway: Gateway, url: str, model: str, candidate: str, rollouts: Path) -> str:
    plan = Plan(model, candidate, "r", gateway.engine_url, PROMPTS, (50, 100), 3, POLICY, 60, 2)
    traffic = Traffic(url, model, PROMPTS, VERSION_HEADER)
    return roll_out(Rollouts(rollouts), plan, LocalTarget(gateway), traffic, lambda _: None).outcome


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    gateway = Gateway(Path(asked["folder"]), asked["admin_url"], asked["engine_url"], asked["base_model"])
    print(run(gateway, asked["url"], asked["model"], asked["candidate"], Path(sys.argv[2])))
