"""One side of a comparison: a suite asked of a served model, or its results from an earlier run. Effect (HTTP, files).

Results are kept under a digest of all that they depend on: the model's bytes, prompt, task, items, cases, chat template,
engine and settings. A model whose bytes nobody names is asked every time: its name may stand for another one tomorrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from evals.endpoint import Served, probe
from evals.evaluate import Side, Tools, evaluate, evaluate_in_blocks
from evals.gate_blocks import BlockPlan
from evals.gate_policy import GatePolicy
from evals.lm_eval_runner import Setting
from evals.prompt import Prompt
from evals.promptfoo_runner import cases_sha256
from evals.report import EvalReport, from_json, to_json
from evals.suite import Suite, file_sha256, resolve_task
from tasks.base_model import resolve_base
from tasks.kept import collect, used
from tasks.progress import Progress
from tasks.settings import Settings
from tasks.stack.addresses import StackDown
from tasks.stack.ports import remembered
from tasks.stage import digest_of
from tasks.whole_file import write_whole

CONCURRENCY = 16
TEMPLATE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
UNPINNED = "unpinned"


@dataclass(frozen=True)
class Endpoint:
    """Where is asked, in which settings. `base_url` ends in /v1; `model` is asked where no adapter.yaml names one."""

    base_url: str
    model: str | None
    settings: Settings
    console: Console

    @property
    def state(self) -> Path:
        return self.settings.state


def endpoint_of(settings: Settings, base_url: str | None, model: str | None, console: Console) -> Endpoint:
    """`base_url`, else LIFTLOCK_VLLM_URL, else the local stack's vLLM. Raises StackDown."""
    if base_url is None and settings.vllm_url is None:
        port = remembered(settings.state).get("vllm")
        if port is None:
            raise StackDown("no endpoint: give --endpoint URL, set LIFTLOCK_VLLM_URL, or start one with `liftlock up`")
        base_url = f"http://127.0.0.1:{port}/v1"
    return Endpoint(base_url or f"{(settings.vllm_url or '').rstrip('/')}/v1", model, settings, console)


@dataclass(frozen=True)
class Question:
    """A suite as one side asks it. `model` and `model_sha256` are None where nothing pins them."""

    suite: str
    task: Path
    cases: Path | None
    prompt: Prompt
    dataset: Path
    metric: str
    base_model: str
    model: str | None
    model_sha256: str | None
    cluster: str = ""
    repeats: int = 1


def ask(question: Question, where: Endpoint, what: str) -> tuple[EvalReport, bool]:
    """The report, and whether it was kept from before. Raises what evals.evaluate.evaluate raises."""
    side, key = _side(question, where)
    file = where.state / "reports" / f"{key}.json"
    if question.model_sha256 and used(file):
        return from_json(file.read_text(encoding="utf-8")), True
    with Progress(where.console, what) as progress:
        report = evaluate(
            side,
            question.dataset,
            _tools(where, key),
            _setting(question),
            lambda tool, done, total: progress.update(done, total, tool),
        )
    if question.model_sha256 and not report.assertions.errored:
        write_whole(file, to_json(report))
    collect(where.state)
    return report, False


def ask_in_blocks(
    ours: Question, theirs: Question, where: Endpoint, plan: BlockPlan, policy: GatePolicy, under_test: Sequence[str]
) -> tuple[EvalReport, EvalReport, bool]:
    """(candidate, baseline, whether the baseline had been asked before), of the plan's blocks until the items decide by
    `policy`, and the cases until it cannot be met any more. `under_test`: see evals.gate.decide.
    """
    candidate, key = _side(ours, where, (plan.seed, *map(len, plan.blocks)))
    baseline, _ = _side(theirs, where, (plan.seed, *map(len, plan.blocks)))
    reused = baseline.answers is not None and baseline.answers.exists()
    with Progress(where.console, ours.suite) as progress:
        both = evaluate_in_blocks(
            candidate,
            baseline,
            ours.dataset,
            _tools(where, key),
            _setting(ours),
            plan,
            policy,
            lambda tool, done, total: progress.update(done, total, tool),
            under_test,
        )
    collect(where.state)
    return (*both, reused)


def _side(question: Question, where: Endpoint, blocks: tuple[int, ...] = ()) -> tuple[Side, str]:
    """The side, and the key of all that its results depend on."""
    model = question.model or where.model or question.suite
    tokenizer = resolve_base(question.base_model, where.settings)
    key = _key(question, probe(where.base_url, model), tokenizer, blocks)
    suite = Suite(question.suite, question.task, question.cases, question.prompt)
    answers = where.state / "answers" / f"{key}.jsonl" if question.model_sha256 else None
    return Side(suite, model, question.model_sha256 or UNPINNED, where.base_url, tokenizer, answers), key


def _tools(where: Endpoint, key: str) -> Tools:
    return Tools(promptfoo_of(where.settings), where.state / "gate" / key[:16])


def _setting(question: Question) -> Setting:
    return Setting(question.metric, num_concurrent=CONCURRENCY, repeats=question.repeats, cluster=question.cluster)


def promptfoo_of(settings: Settings) -> Path:
    return settings.toolchain / "promptfoo" / "node_modules" / ".bin" / "promptfoo"


def _key(question: Question, served: Served, tokenizer: Path, blocks: tuple[int, ...]) -> str:
    template = hashlib.sha256()
    for name in TEMPLATE_FILES:
        template.update((tokenizer / name).read_bytes() if (tokenizer / name).is_file() else b"-")
    return digest_of(
        "side 2", question.model_sha256, served.model, served.engine, served.engine_version, template.hexdigest(),
        resolve_task(question.task, question.dataset, question.prompt).sha256, question.prompt.sha256,
        file_sha256(question.dataset), cases_sha256(question.cases, question.prompt) if question.cases else "none",
        question.metric, CONCURRENCY, [version(name) for name in ("lm_eval", "transformers")], blocks,
        *((question.cluster, question.repeats) if question.cluster or question.repeats > 1 else ()),
    )[:32]  # fmt: skip
