"""What a gate asks and what it answers: the policy, one rule's result with its path, and the decision. Pure values.

They serialise as JSON. gate.py judges reports by them, gate_compare.py plain files of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "rejected", "inconclusive"]
Comparison = Literal["superior", "non_inferior"]
RuleName = Literal["superior", "non_inferior", "floor"]

SEVERITY: tuple[Verdict, ...] = ("rejected", "inconclusive", "passed")
EXIT_CODES: dict[Verdict, int] = {"passed": 0, "rejected": 3, "inconclusive": 4}


@dataclass(frozen=True)
class SliceRule:
    """A rule for the items whose `column` is `value`. `bound` is the margin of a comparison, or the floor."""

    column: str
    value: str
    rule: RuleName
    bound: float

    def __post_init__(self) -> None:
        check_bound(self.rule, self.bound, f"{self.rule} of {self.column}={self.value}")


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must show. ValueError where no report could pass or none could fail.

    superior: the lower bound of candidate - baseline lies above `margin`; non_inferior: above -`margin`.
    floor: the lower bound of the candidate's own mean lies above it; 0 is no floor.
    alpha: the highest chance that a candidate passes which breaks a rule. The rules share it (Holm).
    block: items between two looks; 0 looks once, at all items. seed: of the random order of the blocks.
    cluster: the field whose items belong together, such as a document; "" where items are independent.
    min_case_pass_rate: of promptfoo's cases; 0 needs no cases. max_newly_failing_cases: cases that the baseline passed.
    """

    metric: str = "exact_match,none"
    rule: Comparison = "superior"
    margin: float = 0.0
    alpha: float = 0.05
    floor: float = 0.0
    min_items: int = 100
    min_case_pass_rate: float = 1.0
    max_newly_failing_cases: int = 0
    slices: tuple[SliceRule, ...] = ()
    cluster: str = ""
    block: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha is {self.alpha}; it must lie above 0 and at most at 0.5")
        check_bound(self.rule, self.margin, "margin")
        if self.floor != 0:
            check_bound("floor", self.floor, "floor")
        if self.min_items < 2:
            raise ValueError(f"min_items is {self.min_items}; an interval needs 2 items")
        if not 0 <= self.min_case_pass_rate <= 1:
            raise ValueError(f"min_case_pass_rate is {self.min_case_pass_rate}; it must lie in [0, 1]")
        if self.block < 0:
            raise ValueError(f"block is {self.block}; it must be 0 (one look) or a number of items")


def check_bound(rule: RuleName, bound: float, name: str) -> None:
    if rule == "floor" and not 0 < bound < 1:
        raise ValueError(f"{name} is {bound}; a floor must lie between 0 and 1")
    if not 0 <= bound < 1 or (rule == "non_inferior" and bound == 0):
        raise ValueError(f"{name} is {bound}; it must lie in [0, 1), above 0 for non_inferior")


@dataclass(frozen=True)
class Look:
    """One look at a rule. The rule passes where `estimate` lies above `passes_above`, and fails below `fails_below`."""

    items: int
    estimate: float
    low: float
    high: float
    passes_above: float
    fails_below: float


@dataclass(frozen=True)
class RuleResult:
    """`low` and `high` bound `estimate`, each at the level that the rule has of alpha; `required` is held against them.

    `slice` is "column=value", or "" for all items. `p_value` is of the claim that the rule demands, adjusted by Holm:
    the rule passes where it is at most alpha. `items_needed` is the number of items in all that would decide if the
    estimate stayed as it is, with probability POWER; None where the rule is decided or no number would do.
    `path` has one entry a look (at most MOST_LOOKS of them), the last one is the decision's.
    """

    name: str
    estimate: float
    low: float
    high: float
    required: float
    verdict: Verdict
    slice: str = ""
    p_value: float = 1.0
    items_used: int = 0
    items_available: int = 0
    items_needed: int | None = None
    method: str = ""
    path: tuple[Look, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name} on {self.slice}" if self.slice else self.name


@dataclass(frozen=True)
class Flips:
    """Ids whose result changed, in the candidate's order. A graded item fails newly when its score fell."""

    newly_failing: tuple[str, ...]
    newly_passing: tuple[str, ...]


@dataclass(frozen=True)
class GateDecision:
    """The verdict and all it rests on. `reasons` are sentences, the deciding ones first; digests are the reports'.

    `baseline_version` is the registry's version of the baseline, None for a model without one. `finished` is False
    where more blocks of the suite could still decide. `always_failing` are items of more than one repeat that the
    candidate never got right.
    """

    verdict: Verdict
    rules: tuple[RuleResult, ...]
    items_used: int
    items_available: int
    items_needed: int | None
    reasons: tuple[str, ...]
    candidate: str
    baseline: str
    baseline_version: str | None
    candidate_report_sha256: str
    baseline_report_sha256: str
    alpha: float
    seed: int | None
    finished: bool
    item_flips: Flips
    case_flips: Flips
    always_failing: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]
