"""The gate's page of a release: beside its report, with the items that both sides have and the path over the blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evals.gate import GatePolicy, decide, plan_of
from tasks.gate_page import write_gate_page
from tests import fix_outcome as made
from tests.fix_page import Page


def test_a_rejected_release_shows_what_newly_fails(tmp_path: Path) -> None:
    outcome = made.rejected()
    path = write_gate_page(tmp_path, outcome)
    assert path == tmp_path / "gate.html"
    page = Page(path.read_text().replace("<!doctype html>", ""))
    assert outcome.decision is not None
    assert outcome.decision.item_flips.newly_failing
    assert all(name in page.text for name in outcome.decision.item_flips.newly_failing)
    assert "ticket_router was rejected" in page.text
    assert not [value for key in ("src", "action") for value in page.values(key)]


def test_blocks_have_a_path_and_say_how_few_items_it_took(tmp_path: Path) -> None:
    outcome = made.rejected()
    assert outcome.pair is not None
    policy = GatePolicy(rule="non_inferior", margin=0.05, block=8, min_items=10, min_case_pass_rate=0.0)
    plan = plan_of(outcome.pair.candidate, policy)
    decision = decide(outcome.pair.candidate, outcome.pair.baseline, policy, plan=plan)
    path = write_gate_page(tmp_path, replace(outcome, decision=decision, pair=replace(outcome.pair, plan=plan)))
    assert path is not None
    assert f"non_inferior after {decision.items_used} of {decision.items_available} items and" in path.read_text()
    assert decision.items_used < decision.items_available


def test_a_release_without_a_decision_has_no_page(tmp_path: Path) -> None:
    assert write_gate_page(tmp_path, made.failed()) is None
    assert not list(tmp_path.iterdir())
