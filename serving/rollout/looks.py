"""One look at a step: its samples so far, its clients' requests or its shadow, as a Step with a decision. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving.rollout.analysis import AnalysisPolicy, judge, judge_clients
from serving.rollout.machine import State
from serving.rollout.mirror import DRAWN, Shadow, shadow_finding
from serving.rollout.model import Clients, Decision, Sample, SideStats, Step


def side(version: str, samples: Sequence[Sample]) -> SideStats:
    mine = [sample for sample in samples if sample.version == version]
    times = tuple(sample.first_token_seconds for sample in mine if sample.first_token_seconds is not None)
    return SideStats(version, len(mine), sum(not sample.ok for sample in mine), times)


def look(
    state: State,
    samples: Sequence[Sample],
    policy: AnalysisPolicy,
    seconds: float,
    asked: Sequence[Sample] | None = None,
) -> Step:
    """One look at the step's samples so far, with the decision. `asked` are clients' own requests, where there are any."""
    clients = _clients(state, asked, policy) if asked else None
    stable, candidate = side(state.stable, samples), side(state.candidate, samples)
    found = judge(samples, state.stable, state.candidate, state.weight, policy)
    bad = clients is not None and clients.decision == "undo" and found.decision != "undo"
    decision: Decision = "undo" if bad else found.decision
    reason = f"clients: {clients.reason}" if bad and clients else found.reason
    return Step(
        state.weight, stable, candidate, decision, reason, round(seconds, 3), found.split, found.findings, clients
    )


def look_at_shadow(
    state: State,
    samples: Sequence[Sample],
    policy: AnalysisPolicy,
    seconds: float,
    shadow: Shadow,
    counted: tuple[int, int],
) -> Step:
    """The same of a step without weight: prompts that were drawn, how the copies of clients' requests ended, and, once these
    say yes, the gate's comparison. From then on no more prompts are drawn: the engine has the suite to answer.
    """
    step = look(replace(state, weight=DRAWN), samples, policy, seconds)
    if shadow.comparison and (step.decision == "go_on" or (shadow.comparison.begun and step.decision != "undo")):
        shadow.traffic.rest()
        gate = shadow.comparison.look()
        step = replace(step, decision=gate.decision, reason=gate.note, findings=(*step.findings, gate))
    copies = shadow_finding(*counted, policy)
    bad = copies.decision == "undo" and step.decision != "undo"
    decision: Decision = "undo" if bad else step.decision
    reason = f"shadow: {copies.note if bad else step.reason}; {counted[0]} requests of clients copied"
    return replace(step, weight=0, decision=decision, reason=reason, findings=(*step.findings, copies))


def _clients(state: State, asked: Sequence[Sample], policy: AnalysisPolicy) -> Clients:
    bad, findings = judge_clients(asked, state.stable, state.candidate, state.weight, policy)
    sides = side(state.stable, asked), side(state.candidate, asked)
    said = f"{sides[1].requests} requests of clients, {sides[1].errors} failed"
    return Clients(*sides, "undo" if bad else "go_on", bad.note if bad else said, findings)
