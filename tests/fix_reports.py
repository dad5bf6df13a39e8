"""Reports made by hand for the tests of the gate: scores by item id, cases by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from evals.prompt import load_prompt
from evals.report import EvalReport, Fingerprint, ItemResult, PromptCase, canonical, count_cases
from evals.suite import Suite

Outcome = Literal["passed", "failed", "errored"]

FINGERPRINT = Fingerprint(
    model="base",
    model_sha256="0" * 64,
    task="ticket_router",
    task_version="1.0",
    task_sha256="1" * 64,
    prompt_sha256="2" * 64,
    template_sha256="3" * 64,
    dataset_sha256="4" * 64,
    cases_sha256="5" * 64,
    engine="vllm",
    engine_version="0.32.0",
    sampling=canonical({"num_concurrent": 8, "batch_size": 1}),
)


def make_report(
    scores: Sequence[float] | Mapping[str, float],
    cases: Mapping[str, Outcome] | None = None,
    *,
    model: str = "base",
    fingerprint: Fingerprint = FINGERPRINT,
    metric: str = "exact_match,none",
) -> EvalReport:
    """Items are called item-000 and so on where `scores` is a sequence; every second item is in slice length=long."""
    named = scores if isinstance(scores, Mapping) else {f"item-{i:03}": score for i, score in enumerate(scores)}
    items = tuple(
        ItemResult(key, score, "answer", "target", (("length", "long" if i % 2 else "short"),))
        for i, (key, score) in enumerate(named.items())
    )
    outcomes = {"case-a": "passed", "case-b": "passed"} if cases is None else cases
    judged = tuple(
        PromptCase(key, "format", outcome == "passed", outcome == "errored", f"it {outcome}", "answer")
        for key, outcome in outcomes.items()
    )
    values = list(named.values())
    return EvalReport(
        fingerprint=Fingerprint(**{**vars(fingerprint), "model": model}),
        metrics=((metric, sum(values) / len(values) if values else 0.0),),
        items=items,
        cases=judged,
        assertions=count_cases(judged),
        n=len(items),
        tool_versions=(("lm_eval", "0.4.13"), ("promptfoo", "0.121.20")),
        seconds=1.5,
    )


def ticket_router() -> Suite:
    folder = Path(__file__).parent.parent / "evals" / "ticket_router"
    return Suite(
        "ticket_router", folder / "ticket_router.yaml", folder / "promptfoo.yaml", load_prompt(folder / "prompt.yaml")
    )
