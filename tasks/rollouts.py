"""What a person says to a rollout: pause, resume, abort. An abort is carried out here where no pipeline is left to do it."""

from __future__ import annotations

import re

from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.kept import Kept, NoRollout, Rollouts, RolloutUnderWay
from serving.rollout.machine import Aborted
from serving.rollout.plan import Plan, Target
from serving.rollout.steps import Drive
from serving.rollout.traffic import Traffic
from tasks.settings import Settings
from tasks.spec import NAME


def rollouts_of(settings: Settings, model: str) -> Rollouts:
    """What is kept of that model's rollouts in this state folder. Raises NoRollout for what is no model's name."""
    if not re.fullmatch(NAME, model):
        raise NoRollout(
            f"{model[:60]!r} is no model's name, so it has no rollout; `liftlock status` names what is served"
        )
    return Rollouts(settings.state / "rollouts" / model)


def going(rollouts: Rollouts) -> Kept:
    """The rollout that can still be told something. Raises NoRollout."""
    kept = rollouts.last()
    if kept.state.over:
        raise NoRollout(f"the last rollout of {kept.state.model} is {kept.state.phase}: {kept.state.reason}")
    return kept


def tell(rollouts: Rollouts, command: str, reason: str) -> str:
    """pause or resume, taken by the pipeline at its next look. Raises NoRollout."""
    kept = going(rollouts)
    kept.send(command, reason)
    return f"{kept.state.model}: {command} is asked for; the rollout is {kept.state.phase} at {kept.state.weight} %"


def abort(rollouts: Rollouts, target: Target, reason: str) -> str:
    """Raises NoRollout, UndoNotConfirmed."""
    kept = going(rollouts)
    try:
        with rollouts.driving():
            kept = going(rollouts)
            state = kept.state
            plan = Plan(state.model, state.candidate, "", "", (), state.weights, 0, AnalysisPolicy(1, 0, 1))
            kept.tell(Aborted(reason))
            Drive(kept, plan, target, Traffic("", state.model, (), ""), lambda _: None).to_the_end()
            return f"{state.model}: undone; {state.stable} has all of the traffic"
    except RolloutUnderWay:
        kept.send("abort", reason)
        return f"{kept.state.model}: abort is asked for; the pipeline that drives it undoes it"
