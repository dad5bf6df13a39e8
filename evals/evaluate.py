"""A suite asked of served models: lm-eval's items and promptfoo's cases in one report a model. Effect.

All items at once, or both sides of a comparison block by block until the verdict is clear. What was answered is kept by side
where a file is named for it, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from evals.cases import Cases, placed_cases
from evals.gate import decide
from evals.gate_blocks import BlockPlan, plan_blocks
from evals.gate_cases import cases_refuse
from evals.gate_policy import GatePolicy
from evals.lm_eval_runner import LmEval, LmEvalRun, Setting
from evals.promptfoo_runner import cases_sha256
from evals.report import EvalReport, Fingerprint, check, count_cases, joined
from evals.suite import Suite

StageProgress = Callable[[str, int, int], None]  # ("lm-eval" or "promptfoo", done, total)


@dataclass(frozen=True)
class Tools:
    """`promptfoo` is the program; `workdir` a folder for what the tools write."""

    promptfoo: Path
    workdir: Path


@dataclass(frozen=True)
class Side:
    """One model, where it is served, and the suite that it is asked. `model_sha256` is of the adapter's or checkpoint's bytes.

    `base_url` ends in /v1; `tokenizer` is the checkpoint folder whose chat template is served there. `answers` is a file for
    its answers in this suite and setting; None keeps nothing.
    """

    suite: Suite
    model: str
    model_sha256: str
    base_url: str
    tokenizer: Path
    answers: Path | None = None

    @property
    def asked_alike(self) -> tuple[Suite, str, Path]:
        """One lm-eval process can ask all sides for which this is equal."""
        return self.suite, self.base_url, self.tokenizer


def evaluate(side: Side, dataset: Path, tools: Tools, setting: Setting, progress: StageProgress) -> EvalReport:
    """Every item of `dataset` and every case of the suite. Raises what LmEval and run_promptfoo raise."""
    with _lm_eval(side, dataset, tools, setting, "lm_eval") as lm_eval:
        asking = _Asking(side, lm_eval, tools)
        asking.ask([item["id"] for item in lm_eval.items[: setting.limit]], lambda *told: progress("lm-eval", *told))
    ids = [case.id for case in placed_cases(side.suite)]
    asking.ask_cases(ids, "promptfoo", lambda done: progress("promptfoo", done, len(ids)))
    return asking.report()


def evaluate_in_blocks(
    candidate: Side,
    baseline: Side,
    dataset: Path,
    tools: Tools,
    setting: Setting,
    plan: BlockPlan,
    policy: GatePolicy,
    progress: StageProgress,
    under_test: Sequence[str] = (),
) -> tuple[EvalReport, EvalReport]:
    """(candidate, baseline), of the plan's blocks up to the one at which the items alone decide by `policy`, and the cases.

    A candidate that the items reject is not asked the cases; they are asked block by block too, up to the one at which
    `policy` cannot be met any more. `under_test`: see decide. Raises what LmEval, run_promptfoo and decide raise.
    """
    setting = replace(setting, block=len(plan.blocks[0]), seed=plan.seed)
    with ExitStack() as open_:
        both = {side.asked_alike: side for side in (candidate, baseline)}
        processes = {
            alike: open_.enter_context(_lm_eval(side, dataset, tools, setting, f"lm_eval_{place}"))
            for place, (alike, side) in enumerate(both.items())
        }
        sides = [_Asking(side, processes[side.asked_alike], tools) for side in (candidate, baseline)]
        verdict = _ask_blocks(sides, plan, replace(policy, min_case_pass_rate=0.0), progress, under_test)
    if verdict != "rejected":
        _ask_case_blocks(sides, plan, policy, progress)
    return sides[0].report(), sides[1].report()


def ask_twice(
    side: Side, dataset: Path, tools: Tools, setting: Setting, plan: BlockPlan, progress: StageProgress
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores by item id of two runs of one model: at once, and in the plan's blocks, so that the batches are other ones. Where
    the task samples, the second run draws with another seed.

    Nothing is taken from a file of answers, and the cases are not asked.
    """
    side, runs = replace(side, answers=None), []
    for number, blocks in enumerate(([[item for block in plan.blocks for item in block]], plan.blocks)):
        with _lm_eval(side, dataset, tools, setting, f"lm_eval_{number}") as lm_eval:
            asking, done = _Asking(side, lm_eval, tools), number * plan.items
            for block in blocks:
                asking.ask_once(block, partial(_tell, progress, done, 2 * plan.items), repeat=number)
                done += len(block)
        runs.append({item.id: item.score for item in asking.report().items})
    return runs[0], runs[1]


def _ask_blocks(
    sides: Sequence[_Asking], plan: BlockPlan, policy: GatePolicy, progress: StageProgress, under_test: Sequence[str]
) -> str:
    repeats = sides[0].lm_eval.repeats
    done, total = 0, len(sides) * plan.items * repeats
    for block in plan.blocks:
        for side in sides:
            side.ask(block, partial(_tell, progress, done, total))
            done += len(block) * repeats
        decision = decide(sides[0].report(), sides[1].report(), policy, plan=plan, under_test=under_test)
        if decision.finished:
            break
    return decision.verdict


def _ask_case_blocks(sides: Sequence[_Asking], plan: BlockPlan, policy: GatePolicy, progress: StageProgress) -> None:
    cases = placed_cases(sides[0].side.suite)
    done, total = 0, len(sides) * len(cases)
    for number, block in enumerate(plan_blocks(cases, len(plan.blocks[0]), plan.seed).blocks):
        for name, side in zip(("candidate", "baseline"), sides, strict=True):

            def told(count: int, before: int = done) -> None:
                progress("promptfoo", before + count, total)

            side.ask_cases(block, f"promptfoo_{name}_{number}", told)
            done += len(block)
        if cases_refuse(sides[0].report(), sides[1].report(), policy, len(cases)):
            break


def _tell(progress: StageProgress, before: int, total: int, done: int, _: int) -> None:
    progress("lm-eval", before + done, total)


def _lm_eval(side: Side, dataset: Path, tools: Tools, setting: Setting, folder: str) -> LmEval:
    return LmEval(
        side.suite.task_yaml,
        dataset,
        prompt=side.suite.prompt,
        base_url=side.base_url,
        tokenizer=side.tokenizer,
        workdir=tools.workdir / folder,
        setting=setting,
    )


@dataclass
class _Asking:
    """One side while it is asked."""

    side: Side
    lm_eval: LmEval
    tools: Tools
    runs: list[LmEvalRun] = field(default_factory=list)
    cases: Cases = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        side = self.side
        kept = side.answers and side.answers.with_suffix(".cases.json")
        self.cases = Cases(side.suite, side.model, self.tools.promptfoo, side.base_url, kept)

    def ask(self, ids: Sequence[str], progress: Callable[[int, int], None]) -> None:
        """As often as the setting says; what is told counts the repeats."""
        repeats = self.lm_eval.repeats
        for repeat in range(repeats):

            def told(done: int, total: int, before: int = repeat * len(ids)) -> None:
                progress(before + done, repeats * total)

            self.ask_once(ids, told, repeat)

    def ask_once(self, ids: Sequence[str], progress: Callable[[int, int], None], repeat: int) -> None:
        began = time.monotonic()
        answers = self.side.answers
        self.runs.append(self.lm_eval.ask(self.side.model, ids, answers=answers, repeat=repeat, progress=progress))
        self.seconds += time.monotonic() - began

    def ask_cases(self, ids: Sequence[str], folder: str, progress: Callable[[int], None]) -> None:
        if not ids:
            return
        began = time.monotonic()
        self.cases.ask(ids, self.tools.workdir / folder, progress)
        self.seconds += time.monotonic() - began

    def report(self) -> EvalReport:
        items, cases = joined(run.items for run in self.runs), self.cases.in_order()
        found = EvalReport(
            fingerprint=_fingerprint(self.runs[0], self.side),
            metrics=_joined(self.runs),
            items=items,
            cases=cases,
            assertions=count_cases(cases),
            n=len(items),
            tool_versions=(*self.runs[0].tool_versions, *((("promptfoo", self.cases.version),) if cases else ())),
            seconds=self.seconds,
        )
        check(found)
        return found


def _joined(runs: Sequence[LmEvalRun]) -> tuple[tuple[str, float], ...]:
    """Means over all items of metrics that are means over items; the gate refuses its own metric where it is not one."""
    if len(runs) == 1:
        return runs[0].metrics
    total = sum(len(run.items) for run in runs)
    return tuple(
        (name, sum(dict(run.metrics)[name] * len(run.items) for run in runs) / total) for name, _ in runs[0].metrics
    )


def _fingerprint(run: LmEvalRun, side: Side) -> Fingerprint:
    suite = side.suite
    return Fingerprint(
        model=run.served.model,
        model_sha256=side.model_sha256,
        task=run.task,
        task_version=run.task_version,
        task_sha256=run.task_sha256,
        prompt_sha256=suite.prompt.sha256,
        template_sha256=run.template_sha256,
        dataset_sha256=run.dataset_sha256,
        cases_sha256=cases_sha256(suite.promptfoo_yaml, suite.prompt) if suite.promptfoo_yaml else "none",
        engine=run.served.engine,
        engine_version=run.served.engine_version,
        sampling=run.sampling,
    )
