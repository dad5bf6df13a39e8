"""evaluate: the candidate and its baseline on the same engine, item by item. Reports are kept by what was asked of whom."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlflow

from evals.evaluate import Side, Tools, evaluate_in_blocks
from evals.evaluate import evaluate as ask_all
from evals.gate import plan_of_suite
from evals.gate_blocks import BlockPlan
from evals.lm_eval_runner import Setting
from evals.prompt import load_prompt, messages
from evals.report import EvalReport, from_json, to_json
from evals.suite import Suite, load_items, resolve_task
from serving.engine import load_adapter, unload_adapter
from serving.rollout.golden import GOLDEN, record
from tasks.artifacts import Adapter, Dataset, EvalPair, GatePolicy
from tasks.asked import CONCURRENCY, promptfoo_of
from tasks.dataset import read_items
from tasks.judge import policy_of
from tasks.kept import collect, used
from tasks.ledger import alias_version
from tasks.noise import check_margin
from tasks.place import Place, asked_place, current_place
from tasks.progress import Progress
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.setup import VLLM_VERSION
from tasks.spec import Release
from tasks.stack.engine import Engine, engine_dtype
from tasks.stage import digest_of, stage
from tasks.train import ADAPTER_FILES
from tasks.whole_file import write_whole


@dataclass(frozen=True)
class Baseline:
    """What the candidate is compared with: a version that is served, or the base model (`version` None)."""

    version: str | None
    engine_model: str
    sha256: str


def find_baseline(adapter: Adapter, spec: Release) -> Baseline:
    """The champion; the base where there is none, where the spec says so, or where the champion is this very adapter
    and was itself judged against the base."""
    base = Baseline(None, Engine(str(adapter.base)).served_name, adapter.base_sha256)
    if spec.gate.baseline == "base":
        return base
    client = mlflow.MlflowClient()
    version = alias_version(client, spec.name, "champion")
    if version is None:
        return base
    tags = client.get_model_version(spec.name, version).tags
    if tags.get("liftlock.adapter_sha256") == adapter.sha256:
        judged_against = tags.get("liftlock.baseline_version", "base")
        if judged_against == "base":
            return base
        version, tags = judged_against, client.get_model_version(spec.name, judged_against).tags
    return Baseline(version, tags["liftlock.engine_model"], tags["liftlock.adapter_sha256"])


def suite_of(spec: Release) -> Suite:
    return Suite(spec.name, spec.gate.task, spec.gate.cases, load_prompt(spec.gate.prompt))


def evaluate_pair(adapter: Adapter, dataset: Dataset, spec: Release) -> EvalPair:
    """Raises what evals.evaluate raises: an endpoint that does not answer, a suite that is wrong."""
    adapters = get_settings().adapters
    name = f"eval-{spec.name}-{adapter.sha256[:12]}"
    baseline, candidate = find_baseline(adapter, spec), Baseline(None, name, adapter.sha256)
    policy = policy_of(spec, baseline.version)
    test, suite = dataset.split("test").path, suite_of(spec)
    check_margin(get_settings().state, spec.gate, test, policy)
    plan = plan_of_suite(load_items(test), resolve_task(suite.task_yaml, test, suite.prompt).slices, policy)
    place = asked_place(get_settings(), spec)
    _offer(adapter, adapters / name)
    try:
        asking = _Asking(adapter, dataset, spec, place)
        if spec.gate.block:
            pair = asking.in_blocks(candidate, baseline, policy, plan)
        else:
            ours, theirs = asking.whole(candidate, "candidate"), asking.whole(baseline, "baseline")
            pair = EvalPair(ours, theirs, baseline.version, digest_of(ours.sha256, theirs.sha256))
        return replace(pair, golden=record(place.url, name, prompts_of(spec, test)[:GOLDEN]))
    finally:
        _withdraw(name, adapters / name, place)
        collect(get_settings().state)


def setting_of(spec: Release) -> Setting:
    gate = spec.gate
    return Setting(gate.metric, num_concurrent=CONCURRENCY, repeats=gate.repeats, cluster=gate.cluster)


def prompts_of(spec: Release, test: Path) -> list[tuple[dict[str, str], ...]]:
    """The suite's chat messages for each test item."""
    prompt = load_prompt(spec.gate.prompt)
    return [messages(prompt, item) for item in read_items(test)]


def _offer(adapter: Adapter, folder: Path) -> None:
    """Put the adapter where the engine finds it by name; the folder appears whole."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in ADAPTER_FILES:
        shutil.copyfile(adapter.path / name, partial / name)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _withdraw(name: str, folder: Path, place: Place) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    unload_adapter(place.url, name)


@dataclass(frozen=True)
class _Asking:
    """What is asked of both sides, and where: at `place`, a champion at its own engine. Reports and answers are kept by all
    that they depend on.
    """

    adapter: Adapter
    dataset: Dataset
    spec: Release
    place: Place

    def whole(self, model: Baseline, side: str) -> EvalReport:
        """From the folder of reports, or by asking the engine."""
        file = get_settings().state / "reports" / f"{self._key(model)}.json"
        if used(file):
            return from_json(file.read_text())
        with Progress(current_run().console, side) as progress:
            report = ask_all(
                self._side(model),
                self.dataset.split("test").path,
                self._tools(side),
                setting_of(self.spec),
                lambda tool, done, total: progress.update(done, total, tool),
            )
        if not report.assertions.errored:  # else the next release would be as inconclusive, whatever was mended
            write_whole(file, to_json(report))
        return report

    def in_blocks(self, candidate: Baseline, baseline: Baseline, policy: GatePolicy, plan: BlockPlan) -> EvalPair:
        """Both sides, block by block, until the items decide."""
        with Progress(current_run().console, "evaluate") as progress:
            ours, theirs = evaluate_in_blocks(
                self._side(candidate),
                self._side(baseline),
                self.dataset.split("test").path,
                self._tools("blocks"),
                setting_of(self.spec),
                plan,
                policy,
                lambda tool, done, total: progress.update(done, total, tool),
            )
        return EvalPair(ours, theirs, baseline.version, digest_of(ours.sha256, theirs.sha256), plan)

    def _side(self, model: Baseline) -> Side:
        settings = get_settings()
        place = current_place(settings, self.spec.name) if model.version else self.place
        load_adapter(place.url, model.engine_model)
        kept = settings.state / "answers" / f"{self._key(model)}.jsonl"
        tokenizer = self.adapter.base if place.url == self.place.url else place.base
        return Side(suite_of(self.spec), model.engine_model, model.sha256, f"{place.url}/v1", tokenizer, kept)

    def _tools(self, folder: str) -> Tools:
        return Tools(promptfoo_of(get_settings()), current_run().folder / "evaluate" / folder)

    def _key(self, model: Baseline) -> str:
        return digest_of(model.sha256, *_asked(self.dataset, self.spec))[:32]


def _asked(dataset: Dataset, spec: Release) -> tuple[Any, ...]:
    """What a report depends on besides the model."""
    test = dataset.split("test")
    files = [path.read_text() for path in (spec.gate.task, spec.gate.cases) if path]
    blocks = (spec.gate.block, spec.gate.seed) if spec.gate.block else ()
    more = (
        {"cluster": spec.gate.cluster, "repeats": spec.gate.repeats}
        if spec.gate.cluster or spec.gate.repeats > 1
        else {}
    )
    return (
        "3",
        test.sha256,
        load_prompt(spec.gate.prompt).sha256,
        files,
        spec.gate.metric,
        CONCURRENCY,
        VLLM_VERSION,
        engine_dtype(),
        *blocks,
        *more.items(),
    )


def _key(adapter: Adapter, dataset: Dataset, spec: Release) -> tuple[Any, ...]:
    baseline = find_baseline(adapter, spec)
    stops = (asdict(policy_of(spec, baseline.version)),) if spec.gate.block else ()  # it says how far is asked
    return (adapter.sha256, baseline.version, baseline.sha256, *_asked(dataset, spec), *stops)


def _score(report: EvalReport, metric: str = "exact_match,none") -> float:
    return dict(report.metrics).get(metric, sum(item.score for item in report.items) / report.n)


def _note(pair: EvalPair) -> str:
    name = f"version {pair.baseline_version}" if pair.baseline_version else "base"
    cases = pair.candidate.assertions
    told = f", {cases.passed} of {cases.passed + cases.failed + cases.errored} cases" if pair.candidate.cases else ""
    of = f" of {pair.plan.items}" if pair.plan else ""
    scores = f"{_score(pair.candidate):.3f} against {_score(pair.baseline):.3f} of {name}"
    return f"{scores} on {pair.candidate.n}{of} items{told}"


def _row(side: str, report: EvalReport) -> str:
    cases = report.assertions
    cells = (
        side,
        report.fingerprint.model,
        f"{_score(report):.4f}",
        report.n,
        cases.passed,
        cases.failed,
        cases.errored,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _artifact(pair: EvalPair) -> str:
    head = "| side | model | score | items | cases passed | failed | errored |\n|---|---|---|---|---|---|---|"
    return "\n".join((head, _row("candidate", pair.candidate), _row("baseline", pair.baseline))) + "\n"


def _believable(pair: EvalPair) -> bool:
    """One of before there were golden answers is made again from the kept reports; one with a case that errored, too: its
    cause may be mended.
    """
    return bool(pair.golden) and not pair.candidate.assertions.errored and not pair.baseline.assertions.errored


evaluate = stage(
    "evaluate",
    key=_key,
    digest=lambda pair: pair.sha256,
    note=_note,
    artifact=_artifact,
    intact=_believable,
    retries=1,
)(evaluate_pair)
