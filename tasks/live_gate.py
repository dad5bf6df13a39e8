"""The gate's comparison during the shadow step of strategy mirror: the suite asked of the versions as they are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import mlflow

from evals.evaluate import Side, Tools, evaluate, evaluate_in_blocks
from evals.gate import decide, plan_of_suite
from evals.gated import COMPARISONS
from evals.report import EvalReport
from evals.suite import load_items, resolve_task
from serving.rollout.comparison import Tell, Verdict
from tasks.artifacts import Dataset, GateDecision
from tasks.asked import UNPINNED, promptfoo_of
from tasks.evaluate import setting_of, suite_of
from tasks.judge import policy_of
from tasks.ledger import alias_version
from tasks.place import Place
from tasks.run import current_run
from tasks.settings import Settings
from tasks.spec import Release
from tasks.stack.engine import Engine


def live_comparison(
    settings: Settings, spec: Release, dataset: Dataset, candidate: tuple[str, Place], stable: tuple[str, Place]
) -> Callable[[Tell], Verdict]:
    """Sides are (engine's name, where). The rule is the release's own; with `baseline: base`, or where nothing was released,
    the other side is the base model at the candidate's engine. Nothing is taken from answers that were kept.
    """
    base = Engine(str(candidate[1].base)).served_name
    first = spec.gate.baseline == "base" or stable[0] == base
    version = None if first else alias_version(mlflow.MlflowClient(), spec.name, "champion")
    ours, theirs = (_side(spec, *one) for one in (candidate, (base, candidate[1]) if first else stable))
    test, policy, setting = dataset.split("test").path, policy_of(spec, version), setting_of(spec)
    plan = plan_of_suite(load_items(test), resolve_task(spec.gate.task, test, ours.suite.prompt).slices, policy)
    tools = Tools(promptfoo_of(settings), current_run().folder / "live_gate")

    def compare(tell: Tell) -> Verdict:
        def told(_: str, done: int, total: int) -> None:
            tell(done, total)

        if not spec.gate.block:
            new, old = (
                evaluate(side, test, replace(tools, workdir=tools.workdir / place), setting, told)
                for side, place in ((ours, "candidate"), (theirs, "baseline"))
            )
            return _verdict(new, old, decide(new, old, policy, baseline_version=version))
        new, old = evaluate_in_blocks(ours, theirs, test, tools, setting, plan, policy, told)
        return _verdict(new, old, decide(new, old, policy, baseline_version=version, plan=plan))

    return compare


def _side(spec: Release, engine_model: str, place: Place) -> Side:
    return Side(suite_of(spec), engine_model, UNPINNED, f"{place.url}/v1", place.base)


def _verdict(new: EvalReport, old: EvalReport, decision: GateDecision) -> Verdict:
    rule = next(one for one in decision.rules if one.name in COMPARISONS and not one.slice)
    stable, candidate = (fmean(item.score for item in report.items) for report in (old, new))
    reason = f"the gate's verdict on the live versions is {decision.verdict}: {decision.reasons[0]}"
    return Verdict(decision.verdict == "passed", reason, stable, candidate, rule.low, rule.high)
