"""The champion asked again, nightly: on the items of its release and on fresh ones, with a drift verdict and an event on change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from rich.console import Console

from evals.gate_markdown import to_markdown
from evals.gate_sentences import change_headline
from evals.gated import GatedChange, document
from evals.prompt import load_prompt
from evals.report import EvalReport
from serving.engine import load_adapter
from tasks.asked import Endpoint, Question, ask, endpoint_of
from tasks.champion_report import ChampionReport, champion_report
from tasks.drift import judge_drift, verdict_changed
from tasks.judge import policy_of
from tasks.place import own_url
from tasks.retry import retry_condition
from tasks.settings import get_settings
from tasks.spec import Release, load_release

EVENT = "liftlock.champion.drift"


@flow(name="reevaluate", flow_run_name="{spec_file}", log_prints=False, validate_parameters=True)
def reevaluate(spec_file: str, fresh: str | None = None) -> dict[str, Any]:
    """Say whether the champion still answers as it did when it was released; returns the JSON answer.

    Args:
        spec_file: The champion's release.yaml.
        fresh: JSON lines of new items, such as last week's answered ones; none are asked where it is left out.
    """
    spec = load_release(Path(spec_file), ("gate", "dataset.test"))
    drift = _ask_again(spec, Path(fresh) if fresh else None)
    before = verdict_changed(get_settings().state, spec.name, drift.verdict)
    if before is not None:
        payload = {"verdict": drift.verdict, "before": before, "said": change_headline(drift)}
        emit_event(EVENT, resource={"prefect.resource.id": f"liftlock.model.{spec.name}"}, payload=payload)
    return document(drift)


@task(name="ask_again", retries=1, retry_delay_seconds=5, retry_condition_fn=retry_condition, persist_result=False)
def _ask_again(spec: Release, fresh: Path | None) -> GatedChange:
    champion = champion_report(spec.name)
    settings = get_settings()
    own = own_url(settings, spec.name)
    where = endpoint_of(settings, f"{own}/v1" if own else None, None, Console(file=sys.stderr))
    load_adapter(where.base_url.removesuffix("/v1"), champion.engine_model)
    now = _report(spec, champion, spec.dataset.test, where)
    new = _report(spec, champion, fresh, where) if fresh else None
    drift = judge_drift(spec.name, champion.report, now, new, policy_of(spec, champion.version))
    create_markdown_artifact(to_markdown(drift), key="liftlock-drift", description=change_headline(drift))
    return drift


def _report(spec: Release, champion: ChampionReport, items: Path, where: Endpoint) -> EvalReport:
    """Always asked: a digest that is not given keeps results from being reused."""
    gate = spec.gate
    question = Question(
        suite=spec.name, task=gate.task, cases=gate.cases, prompt=load_prompt(gate.prompt), dataset=items,
        metric=gate.metric, base_model=spec.base_model, model=champion.engine_model, model_sha256=None,
        cluster=gate.cluster, repeats=gate.repeats,
    )  # fmt: skip
    return ask(question, where, "champion")[0]
