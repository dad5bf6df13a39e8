"""judge: the two reports and the policy → GateDecision. A decision that is not passed ends the release."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evals.gate import SliceRule, decide
from tasks.artifacts import EvalPair, GateDecision, GatePolicy
from tasks.spec import Release
from tasks.stage import Status, digest_of, stage


class GateRefused(Exception):
    """The gate did not open. `decision` says why."""

    def __init__(self, decision: GateDecision) -> None:
        super().__init__(f"{decision.verdict}: {' '.join(decision.reasons)}")
        self.decision = decision


def policy_of(spec: Release, baseline_version: str | None) -> GatePolicy:
    """The spec's rule holds against a champion; against the base, a first version must be superior."""
    gate = spec.gate
    first = baseline_version is None
    return GatePolicy(
        metric=gate.metric,
        rule="superior" if first else gate.rule,
        margin=0.0 if first else gate.margin,
        alpha=gate.alpha,
        floor=gate.floor,
        min_items=gate.min_items,
        min_case_pass_rate=gate.min_case_pass_rate,
        max_newly_failing_cases=gate.max_newly_failing_cases,
        slices=tuple(SliceRule(one.column, one.value, one.rule, one.bound) for one in gate.slices),
        cluster=gate.cluster,
        block=gate.block,
        seed=gate.seed,
    )


def judge_pair(pair: EvalPair, spec: Release) -> GateDecision:
    policy = policy_of(spec, pair.baseline_version)
    return decide(pair.candidate, pair.baseline, policy, baseline_version=pair.baseline_version, plan=pair.plan)


def _status(decision: GateDecision) -> Status:
    return "done" if decision.verdict == "passed" else decision.verdict


def _artifact(decision: GateDecision) -> str:
    rows = "\n".join(
        f"| {rule.label} | {rule.estimate:.4f} | [{rule.low:.4f}, {rule.high:.4f}] | {rule.required:.4f} | {rule.verdict} |"
        for rule in decision.rules
    )
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    return f"**{decision.verdict}**\n\n{reasons}\n\n| rule | estimate | interval | required | verdict |\n|---|---|---|---|---|\n{rows}\n"


def decision_digest(decision: GateDecision) -> str:
    return digest_of(asdict(decision))


def _key(pair: EvalPair, spec: Release) -> tuple[Any, ...]:
    return ("3", pair.sha256, asdict(policy_of(spec, pair.baseline_version)))


_judge = stage(
    "judge",
    key=_key,
    digest=decision_digest,
    note=lambda decision: f"{decision.verdict}: {decision.reasons[0] if decision.reasons else ''}",
    artifact=_artifact,
    status=_status,
    retries=0,
)(judge_pair)


def judge(pair: EvalPair, spec: Release) -> GateDecision:
    """Raises GateRefused, after the decision is on record."""
    decision = _judge(pair, spec)
    if decision.verdict != "passed":
        raise GateRefused(decision)
    return decision
