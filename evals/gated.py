"""A gate's decision with what it rests on, suite by suite: the one value that text, JSON, JUnit XML, Markdown, the page and
the exit code are made of. Pure values; nothing here judges again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from evals.gate import GateDecision, GatePolicy, plan_of
from evals.gate_policy import EXIT_CODES, SEVERITY, RuleResult, Verdict
from evals.report import EvalReport, ItemResult

Change = Literal["newly failing", "newly passing", "still failing", "still passing"]
CHANGES: tuple[Change, ...] = ("newly failing", "newly passing", "still failing", "still passing")
COMPARISONS = ("superior", "non_inferior")
FULL_SCORE = 1.0


@dataclass(frozen=True)
class ItemDiff:
    """One item or promptfoo case on both sides. Scores lie in [0, 1]; `question` is what was asked, "" where unknown."""

    id: str
    slices: tuple[tuple[str, str], ...]
    question: str
    target: str
    baseline_answer: str
    candidate_answer: str
    baseline_score: float
    candidate_score: float

    @property
    def change(self) -> Change:
        if self.candidate_score != self.baseline_score:
            return "newly failing" if self.candidate_score < self.baseline_score else "newly passing"
        return "still passing" if self.candidate_score >= FULL_SCORE else "still failing"


@dataclass(frozen=True)
class SliceDiff:
    """The items with one slice value: mean scores of both sides, and how many items fell and rose."""

    column: str
    value: str
    n: int
    baseline: float
    candidate: float
    fell: int
    rose: int


@dataclass(frozen=True)
class GatedSuite:
    """`touched` are kinds of change, such as "prompt". `reused`: the baseline was not asked again.

    `notes` are sentences that a reader must know and that decide nothing.
    """

    suite: str
    touched: tuple[str, ...]
    metric: str
    decision: GateDecision
    items: tuple[ItemDiff, ...]
    cases: tuple[ItemDiff, ...] = ()
    reused: bool = False
    notes: tuple[str, ...] = ()

    @property
    def comparison(self) -> RuleResult | None:
        """The rule that compares all items of both sides."""
        rules = self.decision.rules
        return next((rule for rule in rules if rule.name in COMPARISONS and not rule.slice), None)

    def items_of(self, rule: RuleResult) -> tuple[ItemDiff, ...]:
        """Those of the rule's slice."""
        return tuple(item for item in self.items if rule.slice in ("", *("=".join(pair) for pair in item.slices)))

    def changed(self, change: Change) -> tuple[ItemDiff, ...]:
        return tuple(item for item in self.items if item.change == change)


@dataclass(frozen=True)
class GatedChain:
    """The delivery chains of the folder `path`. `new` are the incoherences that the change brings, one sentence each;
    `known` counts those that were there before."""

    path: str
    new: tuple[str, ...]
    known: int = 0
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return "rejected" if self.new else "passed"

    @property
    def headline(self) -> str:
        before = f" {self.known} were there before." if self.known else ""
        if not self.new:
            return f"The delivery chain of {self.path} stays as coherent as it was.{before}"
        many = f"{len(self.new)} new incoherence{'s' if len(self.new) > 1 else ''}"
        return f"The delivery chain of {self.path} gets {many}.{before}"


@dataclass(frozen=True)
class GatedChange:
    """A change from commit `base` to commit `head` ("" where no repository is involved), with every suite and every
    delivery chain that it touches."""

    base: str
    head: str
    suites: tuple[GatedSuite, ...]
    notes: tuple[str, ...] = ()
    chains: tuple[GatedChain, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of suites and chains; a change that touches none passes."""
        found = [*(one.decision.verdict for one in self.suites), *(one.verdict for one in self.chains)]
        return min(found, key=SEVERITY.index, default="passed")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def diff_items(
    candidate: EvalReport, baseline: EvalReport, used: Sequence[str], questions: Mapping[str, str]
) -> tuple[ItemDiff, ...]:
    """The items that the verdict rests on, in the candidate's order."""
    before, wanted = {item.id: item for item in baseline.items}, set(used)
    return tuple(_diff(item, before[item.id], questions) for item in candidate.items if item.id in wanted)


def used_ids(candidate: EvalReport, decision: GateDecision, policy: GatePolicy) -> tuple[str, ...]:
    """All items, or those of the blocks up to the look that decided."""
    if not policy.block:
        return tuple(item.id for item in candidate.items)
    ordered = [name for block in plan_of(candidate, policy).blocks for name in block]
    return tuple(ordered[: decision.items_used])


def _diff(new: ItemResult, old: ItemResult, questions: Mapping[str, str]) -> ItemDiff:
    asked = questions.get(new.id, "")
    return ItemDiff(new.id, new.slices, asked, new.target, old.answer, new.answer, old.score, new.score)


def diff_cases(candidate: EvalReport, baseline: EvalReport) -> tuple[ItemDiff, ...]:
    """Judged promptfoo cases of both sides; `target` is why the candidate's failed."""
    before = {case.id: case for case in baseline.cases if not case.errored}
    return tuple(
        ItemDiff(
            case.id,
            (("group", case.group),),
            "",
            case.reason,
            before[case.id].answer,
            case.answer,
            float(before[case.id].passed),
            float(case.passed),
        )
        for case in candidate.cases
        if not case.errored and case.id in before
    )


def slice_diffs(items: Iterable[ItemDiff]) -> tuple[SliceDiff, ...]:
    """One row for each slice value, by column and value."""
    found: dict[tuple[str, str], list[ItemDiff]] = {}
    for item in items:
        for pair in item.slices:
            found.setdefault(pair, []).append(item)
    return tuple(_slice(*pair, rows) for pair, rows in sorted(found.items()))


def _slice(column: str, value: str, rows: list[ItemDiff]) -> SliceDiff:
    changes = [row.change for row in rows]
    return SliceDiff(
        column,
        value,
        len(rows),
        fmean(row.baseline_score for row in rows),
        fmean(row.candidate_score for row in rows),
        changes.count("newly failing"),
        changes.count("newly passing"),
    )


def document(change: GatedChange) -> dict[str, Any]:
    """The JSON answer. Rules keep their numbers; items are named where they changed."""
    return {
        "verdict": change.verdict,
        "exit_code": change.exit_code,
        "base": change.base,
        "head": change.head,
        "notes": list(change.notes),
        "suites": [_suite(one) for one in change.suites],
        "chains": [_chain(one) for one in change.chains],
    }


def _chain(one: GatedChain) -> dict[str, Any]:
    found = {"path": one.path, "verdict": one.verdict, "findings": list(one.new), "known": one.known}
    return {**found, "notes": list(one.notes)}


def _suite(one: GatedSuite) -> dict[str, Any]:
    decision, rule = one.decision, one.comparison
    return {
        "suite": one.suite,
        "touched": list(one.touched),
        "verdict": decision.verdict,
        "exit_code": decision.exit_code,
        "metric": one.metric,
        "difference": rule.estimate if rule else None,
        "interval": [rule.low, rule.high] if rule else None,
        "items_used": decision.items_used,
        "items_total": decision.items_available,
        "items_needed": decision.items_needed,
        "reasons": list(decision.reasons),
        "notes": list(one.notes),
        "baseline_reused": one.reused,
        "rules": [_rule(result) for result in decision.rules],
        "newly_failing": list(decision.item_flips.newly_failing),
        "newly_passing": list(decision.item_flips.newly_passing),
        "newly_failing_cases": list(decision.case_flips.newly_failing),
        "always_failing": list(decision.always_failing),
    }


def _rule(result: RuleResult) -> dict[str, Any]:
    return {
        "rule": result.label,
        "verdict": result.verdict,
        "estimate": result.estimate,
        "interval": [result.low, result.high],
        "required": result.required,
        "p_value": result.p_value,
    }
