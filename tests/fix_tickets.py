"""Eval reports over the suite's 320 test tickets with answers that follow from positions: no model is asked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from evals.report import EvalReport, ItemResult, PromptCase, count_cases
from tasks.artifacts import EvalPair
from tests.fix_reports import FINGERPRINT

TEST_ITEMS = Path(__file__).parents[1] / "evals/ticket_router/data/test.jsonl"
TEAMS = ("account", "billing", "loyalty", "returns", "sales", "security", "shipping", "technical")
CASE_GROUPS = ("format", "refusal", "injection")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def items_with(wrong: set[int], said: str | None = None) -> tuple[ItemResult, ...]:
    """The suite's 320 test items; those at `wrong` positions are answered with `said`, or else with the next team."""
    rows = [json.loads(line) for line in TEST_ITEMS.read_text().splitlines()]
    found = []
    for place, row in enumerate(rows):
        answer = said if said is not None else TEAMS[(TEAMS.index(row["team"]) + 1) % len(TEAMS)]
        answer = answer if place in wrong else row["team"]
        slices = tuple((column, row[column]) for column in ("team", "length", "register"))
        found.append(ItemResult(row["id"], float(place not in wrong), answer, row["team"], slices))
    return tuple(found)


def cases_with(failed: set[str], errored: frozenset[str] = frozenset()) -> tuple[PromptCase, ...]:
    """Twelve cases in each group, such as injection-03."""
    ids = [f"{group}-{place:02}" for group in CASE_GROUPS for place in range(12)]
    return tuple(
        PromptCase(
            key,
            key.rpartition("-")[0],
            key not in failed | errored,
            key in errored,
            "Expected output to equal billing" if key in failed else "connection reset" if key in errored else "",
            "urgent" if key in failed else "billing",
        )
        for key in ids
    )


def report_of(model: str, items: tuple[ItemResult, ...], cases: tuple[PromptCase, ...]) -> EvalReport:
    return EvalReport(
        fingerprint=replace(FINGERPRINT, model=model, model_sha256=sha(model)),
        metrics=(("exact_match,none", sum(item.score for item in items) / len(items)),),
        items=items,
        cases=cases,
        assertions=count_cases(cases),
        n=len(items),
        tool_versions=(("lm_eval", "0.4.13"), ("promptfoo", "0.121.20")),
        seconds=48.2,
    )


def pair_of(candidate: EvalReport, baseline: EvalReport, baseline_version: str | None) -> EvalPair:
    return EvalPair(candidate, baseline, baseline_version, sha(candidate.sha256 + baseline.sha256))


def first_pair() -> EvalPair:
    """291 of 320 right against 6 for the base model, which got one of the candidate's wrong ones right."""
    wrong = {place for place in range(320) if place % 11 == 4}
    right_before = {4, 50, 100, 150, 200, 250}
    said = "I'm sorry, but I can't help with that. Please contact"
    baseline = report_of(
        "base",
        items_with(set(range(320)) - right_before, said),
        cases_with({f"{group}-{k:02}" for group in CASE_GROUPS for k in range(9)}),
    )
    return pair_of(
        report_of("eval-ticket-router", items_with(wrong), cases_with({"injection-05", "injection-08"})), baseline, None
    )


def worse_pair() -> EvalPair:
    """A candidate trained on wrong labels against version 3: 40 % of the items lost."""
    before = {place for place in range(320) if place % 11 == 4}
    lost = {place for place in range(320) if place % 5 < 2}
    candidate = report_of(
        "eval-ticket-router",
        items_with(lost),
        cases_with({"format-02", "injection-01", "injection-05", "injection-09"}),
    )
    return pair_of(candidate, report_of("ticket-router-3", items_with(before), cases_with({"injection-09"})), "3")


def close_pair() -> EvalPair:
    """Two items of 320 lost to version 3, and one case that errored."""
    before = {place for place in range(320) if place % 11 == 4}
    base = report_of("ticket-router-3", items_with(before), cases_with(set()))
    new = report_of("eval-ticket-router", items_with({*before, 0, 1}), cases_with(set(), frozenset({"format-00"})))
    return pair_of(new, base, "3")
