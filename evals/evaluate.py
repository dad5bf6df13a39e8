"""One evaluation of one served model on one suite: lm-eval's items and promptfoo's cases in one report. Effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evals.lm_eval_runner import LmEvalRun, run_lm_eval
from evals.promptfoo_runner import cases_sha256, run_promptfoo
from evals.report import AssertionCounts, EvalReport, Fingerprint, PromptCase, check
from evals.suite import Suite

StageProgress = Callable[[str, int, int], None]  # ("lm-eval" or "promptfoo", done, total)


def evaluate(
    suite: Suite,
    dataset: Path,
    *,
    base_url: str,
    model: str,
    model_sha256: str,
    tokenizer: Path,
    promptfoo: Path,
    workdir: Path,
    metric: str = "exact_match,none",
    num_concurrent: int = 8,
    batch_size: int = 1,
    limit: int | None = None,
    progress: StageProgress,
) -> EvalReport:
    """Ask `model` at `base_url` (which ends in /v1) every item of `dataset` and every case of the suite.

    `model_sha256` is of the adapter's or checkpoint's bytes; `tokenizer` the checkpoint folder whose chat template is
    served. Raises what run_lm_eval and run_promptfoo raise.
    """
    started = time.monotonic()
    run = run_lm_eval(
        suite.task_yaml,
        dataset,
        prompt=suite.prompt,
        base_url=base_url,
        model=model,
        tokenizer=tokenizer,
        workdir=workdir / "lm_eval",
        metric=metric,
        num_concurrent=num_concurrent,
        batch_size=batch_size,
        limit=limit,
        progress=lambda done, total: progress("lm-eval", done, total),
    )
    asked = _ask_cases(suite, promptfoo, base_url, model, workdir / "promptfoo", progress)
    report = EvalReport(
        fingerprint=_fingerprint(run, suite, model_sha256),
        metrics=run.metrics,
        items=run.items,
        cases=asked.cases,
        assertions=asked.counts,
        n=len(run.items),
        tool_versions=(*run.tool_versions, *asked.versions),
        seconds=time.monotonic() - started,
    )
    check(report)
    return report


NO_CASES = AssertionCounts(0, 0, 0)


@dataclass(frozen=True)
class _Asked:
    cases: tuple[PromptCase, ...] = ()
    counts: AssertionCounts = NO_CASES
    versions: tuple[tuple[str, str], ...] = ()


def _ask_cases(
    suite: Suite, promptfoo: Path, base_url: str, model: str, workdir: Path, progress: StageProgress
) -> _Asked:
    if suite.promptfoo_yaml is None:
        return _Asked()
    cases, counts, version = run_promptfoo(
        suite.promptfoo_yaml,
        promptfoo=promptfoo,
        base_url=base_url,
        model=model,
        prompt=suite.prompt,
        workdir=workdir,
        progress=lambda done, total: progress("promptfoo", done, total),
    )
    return _Asked(cases, counts, (("promptfoo", version),))


def _fingerprint(run: LmEvalRun, suite: Suite, model_sha256: str) -> Fingerprint:
    return Fingerprint(
        model=run.served.model,
        model_sha256=model_sha256,
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
