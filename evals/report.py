"""What one evaluation of one model found: the fingerprint of how it was asked, metrics, and every item's result.

Pure: values, their canonical JSON, and the checks that keep a broken report out of a gate.
It does not run anything and gives no verdict (gate.py does).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

FORMAT = 1
LATER = ("cluster", "scores")


class ReportInvalid(Exception):
    """A report that no verdict may rest on: truncated, contradicting itself, or without results."""


@dataclass(frozen=True)
class ItemResult:
    """One item of the dataset. `score` is of the metric that the gate reads; `slices` are (column, value) pairs.

    `cluster` names what it belongs to, such as a document; "" where items are independent. `scores` has one for each time that
    it was asked, where that is more than once: then `score` is their mean, and `answer` the first.
    """

    id: str
    score: float
    answer: str
    target: str
    slices: tuple[tuple[str, str], ...] = ()
    cluster: str = ""
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class PromptCase:
    """One promptfoo test case. `errored` means that it could not be judged; then `passed` is False and says nothing."""

    id: str
    group: str
    passed: bool
    errored: bool
    reason: str
    answer: str


@dataclass(frozen=True)
class AssertionCounts:
    """Promptfoo cases by outcome. A case passes when all its assertions do; errored is not failed."""

    passed: int
    failed: int
    errored: int


@dataclass(frozen=True)
class Fingerprint:
    """How the model was asked. Two reports are comparable when all but `model` and `model_sha256` are equal.

    `template_sha256` is of the chat template; `task_sha256` of the lm-eval task as it was run; `cases_sha256` of the
    promptfoo cases; `sampling` is canonical JSON of generation settings, concurrency and batch size (scores move
    with batch composition). `engine_version` is "unreported" where the endpoint does not say.
    """

    model: str
    model_sha256: str
    task: str
    task_version: str
    task_sha256: str
    prompt_sha256: str
    template_sha256: str
    dataset_sha256: str
    cases_sha256: str
    engine: str
    engine_version: str
    sampling: str


@dataclass(frozen=True)
class EvalReport:
    """`metrics` are lm-eval's own keys, such as ("exact_match,none", 0.91); `seconds` is wall time of the run."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    fingerprint: Fingerprint
    metrics: tuple[tuple[str, float], ...]
    items: tuple[ItemResult, ...]
    cases: tuple[PromptCase, ...]
    assertions: AssertionCounts
    n: int
    tool_versions: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def sha256(self) -> str:
        """Of what was found, not of how long it took: the canonical JSON without `seconds`, and without an item's fields
        that say nothing, which older reports lack.
        """
        content = {key: value for key, value in asdict(self).items() if key != "seconds"}
        content["items"] = [
            {key: value for key, value in item.items() if key not in LATER or value} for item in content["items"]
        ]
        return hashlib.sha256(canonical(content).encode()).hexdigest()


@dataclass(frozen=True)
class SliceRow:
    """The mean score of the items that share one slice value."""

    column: str
    value: str
    n: int
    mean: float


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks, so that equal values have equal bytes. ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def to_json(report: EvalReport) -> str:
    return canonical({"format": FORMAT, **asdict(report)})


def from_json(text: str) -> EvalReport:
    """A checked report. ReportInvalid names the first thing that is wrong."""
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ReportInvalid(f"the report is not JSON ({error}); it may be truncated: evaluate again") from error
    form = found.pop("format", None) if isinstance(found, dict) else None
    if form != FORMAT:
        raise ReportInvalid(f"the report has format {form!r}; this version reads format {FORMAT}: evaluate again")
    try:
        report = TypeAdapter(EvalReport).validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportInvalid(f"the report's {where or 'document'}: {first['msg']}; evaluate again") from error
    check(report)
    return report


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def check(report: EvalReport) -> None:
    """Raise ReportInvalid where the report is empty, has NaN or duplicate ids, or contradicts itself."""
    name = report.fingerprint.model
    if not report.items:
        raise ReportInvalid(f"the report of {name} has no items (n = 0): evaluate again on a dataset with items")
    _check_ids(name, "item", [item.id for item in report.items])
    _check_ids(name, "case", [case.id for case in report.cases])
    scores = [(f"the score of item {item.id}", one) for item in report.items for one in (item.score, *item.scores)]
    for key, value in [*report.metrics, *scores]:
        if not math.isfinite(value):
            raise ReportInvalid(f"the report of {name}: {key} is {value}, not a finite number: evaluate again")
    if report.n != len(report.items):
        raise ReportInvalid(f"the report of {name} says n = {report.n} and holds {len(report.items)} items")
    if report.assertions != count_cases(report.cases):
        raise ReportInvalid(f"the report of {name} counts {report.assertions}; its cases {count_cases(report.cases)}")


def joined(runs: Iterable[Sequence[ItemResult]]) -> tuple[ItemResult, ...]:
    """The items of all runs, in the order in which they first came; one that came again is a repeat."""
    found: dict[str, list[ItemResult]] = {}
    for item in (item for run in runs for item in run):
        found.setdefault(item.id, []).append(item)
    return tuple(_repeated(times) if len(times) > 1 else times[0] for times in found.values())


def _repeated(times: Sequence[ItemResult]) -> ItemResult:
    scores = tuple(one.score for one in times)
    return replace(times[0], score=fmean(scores), scores=scores)


def restricted(report: EvalReport, ids: Sequence[str], metric: str) -> EvalReport:
    """The report of the items `ids` alone, in their order, with the one metric that can be computed again from them."""
    found = {item.id: item for item in report.items}
    missing = [name for name in ids if name not in found]
    if missing:
        raise ReportInvalid(
            f"the report of {report.fingerprint.model} lacks {len(missing)} of {len(ids)} items, such as {missing[0]!r}: "
            "evaluate again on a file that has them"
        )
    items = tuple(found[name] for name in ids)
    return replace(report, items=items, n=len(items), metrics=((metric, fmean(item.score for item in items)),))


def _check_ids(name: str, kind: str, ids: Sequence[str]) -> None:
    twice = [key for key, count in Counter(ids).items() if count > 1]
    if twice:
        raise ReportInvalid(f"the report of {name} has the {kind} id {twice[0]!r} more than once; ids must be unique")


def count_cases(cases: Iterable[PromptCase]) -> AssertionCounts:
    tally = Counter("errored" if case.errored else "passed" if case.passed else "failed" for case in cases)
    return AssertionCounts(tally["passed"], tally["failed"], tally["errored"])


def slice_table(report: EvalReport) -> tuple[SliceRow, ...]:
    """One row for each slice value, sorted by column and value."""
    scores: dict[tuple[str, str], list[float]] = {}
    for item in report.items:
        for pair in item.slices:
            scores.setdefault(pair, []).append(item.score)
    return tuple(SliceRow(*pair, len(found), fmean(found)) for pair, found in sorted(scores.items()))
