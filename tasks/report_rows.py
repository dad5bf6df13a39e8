"""The rows of the report's tables and plots, counted from an Outcome's values. Pure; no HTML.

It gives no verdict: intervals and decisions come from the gate, the fit report and the rollout as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from evals.gate import GateDecision, RuleResult
from evals.report import EvalReport, ItemResult, PromptCase
from serving.fit import FitReport
from serving.fit.contract import Term
from tasks.artifacts import EvalPair, Outcome
from tasks.report_plots import Marks, Part

DIFFERENCE_RULES = ("superior", "non_inferior")
COUNT_RULE = "newly_failing_cases"
FULL_SCORE = 1.0
MOST_BARS = 40


@dataclass(frozen=True)
class SliceRow:
    """Mean scores of the items with one slice value, on both sides."""

    value: str
    n: int
    baseline: float
    candidate: float

    @property
    def difference(self) -> float:
        return self.candidate - self.baseline


@dataclass(frozen=True)
class Flip:
    """An item whose score fell. `slices` reads like "team billing, length short"."""

    id: str
    slices: str
    target: str
    baseline: str
    candidate: str


@dataclass(frozen=True)
class CaseGroup:
    """Promptfoo cases of one group; `baseline` counts those that the baseline passes."""

    name: str
    n: int
    baseline: int
    passed: int
    failed: int
    errored: int


@dataclass(frozen=True)
class UnhappyCase:
    """A case that the candidate does not pass. `before` is what became of it on the baseline's side."""

    case: PromptCase
    status: str
    before: str

    @property
    def is_new(self) -> bool:
        return self.before == "passed" and self.status == "failed"


def difference_rule(decision: GateDecision | None) -> RuleResult | None:
    """The rule that compares the two sides."""
    rules = decision.rules if decision else ()
    return next((rule for rule in rules if rule.name in DIFFERENCE_RULES), None)


def plotted_rules(decision: GateDecision) -> dict[str, tuple[RuleResult, ...]]:
    """Rules by what their numbers are, one axis each; the rule that only counts has none."""
    differences = tuple(rule for rule in decision.rules if rule.name in DIFFERENCE_RULES)
    rates = tuple(rule for rule in decision.rules if rule.name not in (*DIFFERENCE_RULES, COUNT_RULE))
    named = {"difference of mean scores": differences, "mean score or pass rate": rates}
    return {name: rules for name, rules in named.items() if rules}


def required(rule: RuleResult) -> str:
    """What the rule asks for, in symbols."""
    if rule.name in (*DIFFERENCE_RULES, "floor"):
        return f"interval > {rule.required:.3f}".replace("-", "−")
    return f"≤ {rule.required:g}" if rule.name == COUNT_RULE else f"≥ {rule.required:.3f}"


def metric_of(report: EvalReport, score: float) -> str:
    """The name of the metric with this value: the report does not say which one the gate reads."""
    return next((name for name, value in report.metrics if abs(value - score) < 1e-9), "score")


def shared(pair: EvalPair) -> tuple[tuple[ItemResult, ItemResult], ...]:
    """(baseline's, candidate's) result of each item that both sides have, in the candidate's order.

    Sides with different items are refused by the gate, and the report says so: it must not fail over them.
    """
    before = {item.id: item for item in pair.baseline.items}
    return tuple((before[item.id], item) for item in pair.candidate.items if item.id in before)


def slices(pair: EvalPair) -> dict[str, tuple[SliceRow, ...]]:
    """Rows sorted by value, by column in the order in which the items name the columns."""
    scores: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for old, new in shared(pair):
        for column, value in new.slices:
            scores.setdefault(column, {}).setdefault(value, []).append((old.score, new.score))
    return {
        column: tuple(
            SliceRow(value, len(both), *map(fmean, zip(*both, strict=True))) for value, both in sorted(values.items())
        )
        for column, values in scores.items()
    }


def item_marks(pair: EvalPair) -> tuple[str, tuple[Marks, ...]]:
    """The first slice column's name, and its values' counts; one row "all" where items have no slices.

    Values beyond the MOST_BARS most frequent are counted together.
    """
    both = shared(pair)
    column = next((column for _, new in both for column, _ in new.slices), "all items")
    kinds: dict[str, list[str]] = {}
    for old, new in both:
        kinds.setdefault(dict(new.slices).get(column, "all"), []).append(_kind(old.score, new.score))
    named = sorted(sorted(kinds, key=lambda value: (-len(kinds[value]), value))[:MOST_BARS])
    rest = [kind for value in kinds.keys() - {*named} for kind in kinds[value]]
    bars = [(value, kinds[value]) for value in named] + (
        [(f"{len(kinds) - len(named)} other values", rest)] if rest else []
    )
    names = ("gained", "same_right", "same_wrong", "lost")
    return column, tuple(Marks(value, *(found.count(name) for name in names)) for value, found in bars)


def _kind(before: float, after: float) -> str:
    if after != before:
        return "gained" if after > before else "lost"
    return "same_right" if after >= FULL_SCORE else "same_wrong"


def newly_failing(pair: EvalPair) -> tuple[Flip, ...]:
    """Items whose score fell, in the candidate's order."""
    fell = ((old, new) for old, new in shared(pair) if new.score < old.score)
    return tuple(Flip(new.id, _told(new.slices), new.target, old.answer, new.answer) for old, new in fell)


def _told(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{column} {value}" for column, value in pairs)


def case_status(case: PromptCase) -> str:
    return "errored" if case.errored else "passed" if case.passed else "failed"


def case_groups(pair: EvalPair) -> tuple[CaseGroup, ...]:
    """In the order of the cases."""
    before = {case.id: case_status(case) for case in pair.baseline.cases}
    groups: dict[str, list[PromptCase]] = {}
    for case in pair.candidate.cases:
        groups.setdefault(case.group, []).append(case)
    return tuple(_group(name, cases, before) for name, cases in groups.items())


def _group(name: str, cases: list[PromptCase], before: dict[str, str]) -> CaseGroup:
    now = [case_status(case) for case in cases]
    passed_before = sum(before.get(case.id) == "passed" for case in cases)
    return CaseGroup(name, len(cases), passed_before, now.count("passed"), now.count("failed"), now.count("errored"))


def unhappy_cases(pair: EvalPair) -> tuple[UnhappyCase, ...]:
    """Cases that the candidate fails or that errored; the newly failing first."""
    before = {case.id: case_status(case) for case in pair.baseline.cases}
    found = [UnhappyCase(case, case_status(case), before.get(case.id, "absent")) for case in pair.candidate.cases]
    return tuple(sorted((one for one in found if one.status != "passed"), key=lambda one: not one.is_new))


def needed_bytes(fit: FitReport) -> int:
    """All parts and the KV cache of one sequence of max_model_len."""
    return fit.usable_bytes - fit.headroom_bytes


def fit_parts(fit: FitReport) -> tuple[Part, ...]:
    """The card's memory from left to right; parts of no size are left out. The sum is total_bytes where it fits."""
    fixed = (
        ("weights", fit.weights_bytes),
        ("LoRA slots", fit.lora_bytes),
        ("activation", fit.activation_bytes),
        ("CUDA graphs", fit.cuda_graph_bytes),
        ("non-torch", fit.non_torch_bytes),
    )
    sequence = needed_bytes(fit) - sum(size for _, size in fixed)
    rest = fit.total_bytes - max(fit.usable_bytes, needed_bytes(fit))
    named = (
        *fixed,
        (f"KV cache of one sequence of {fit.max_model_len} tokens", sequence),
        ("headroom, more KV cache", fit.headroom_bytes),
        ("outside gpu_memory_utilization", rest),
    )
    return tuple(Part(name, size, f"part-{place}") for place, (name, size) in enumerate(named, 1) if size > 0)


def term_name(term: Term) -> str:
    """In the words of the table of parts; vLLM counts LoRA slots with the weights."""
    names = {"weights_bytes": "weights and LoRA slots", "kv_cache_bytes": "KV cache", "cuda_graph_bytes": "CUDA graphs"}
    return names.get(term.name, term.name.removesuffix("_bytes").replace("_", "-"))


def evidence(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """(name, value) of everything that says which bytes this release is about."""
    return tuple((name, value) for name, value in _evidence(outcome) if value)


def _evidence(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if dataset := outcome.dataset:
        yield "dataset revision", dataset.revision
        for split in dataset.splits:
            yield f"split {split.name}, {split.num_rows} rows, sha256", split.sha256
    if adapter := outcome.adapter:
        yield "adapter sha256", adapter.sha256
        yield f"base model {adapter.base_model}, sha256", adapter.base_sha256
        yield "MLflow run id", adapter.run_id
    if pair := outcome.pair:
        asked = pair.candidate.fingerprint
        yield "candidate's eval report sha256", pair.candidate.sha256
        yield "baseline's eval report sha256", pair.baseline.sha256
        yield "lm-eval task", f"{asked.task} {asked.task_version}"
        yield "lm-eval task sha256", asked.task_sha256
        yield "prompt sha256", asked.prompt_sha256
        yield "chat template sha256", asked.template_sha256
        yield "promptfoo cases sha256", asked.cases_sha256
        yield "evaluated on", f"{asked.engine} {asked.engine_version}"
        yield "sampling", asked.sampling
        yield "scored with", _tools(pair.candidate)
    if version := outcome.version:
        yield "MLflow model version", f"models:/{version.name}/{version.version}"
        yield "evidence sha256 of the model version", version.sha256
    if modelcar := outcome.modelcar:
        yield "modelcar digest", modelcar.digest
        yield "signed payload", modelcar.signature
    yield "RAG answers sha256", outcome.sample.sha256 if outcome.sample else ""


def _tools(report: EvalReport) -> str:
    return ", ".join(f"{tool} {version}" for tool, version in report.tool_versions)
