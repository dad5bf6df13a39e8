"""Drift of a champion: what counts as one, what may differ since the release, and when somebody is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evals.fingerprint import FingerprintMismatch
from evals.gate import GatePolicy
from evals.report import ReportInvalid, canonical
from tasks.drift import judge_drift, verdict_changed
from tests.fix_reports import FINGERPRINT, make_report

POLICY = GatePolicy(rule="non_inferior", margin=0.1, min_items=10)
RELEASE = make_report([1.0] * 90 + [0.0] * 10)
NEWER = replace(FINGERPRINT, engine_version="0.33.0")


def test_the_same_answers_on_a_newer_engine_are_no_drift_and_the_engine_is_named() -> None:
    now = make_report([1.0] * 90 + [0.0] * 10, fingerprint=NEWER)
    drift = judge_drift("tickets", RELEASE, now, None, POLICY)
    assert (drift.verdict, drift.exit_code) == ("passed", 0)
    assert drift.suites[0].notes == ("Since the release: engine_version 0.32.0 → 0.33.0.",)


def test_answers_that_became_wrong_are_drift_and_are_named() -> None:
    now = make_report([0.0] * 30 + [1.0] * 60 + [0.0] * 10)
    drift = judge_drift("tickets", RELEASE, now, None, POLICY)
    assert drift.verdict == "rejected"
    assert drift.suites[0].decision.item_flips.newly_failing == tuple(f"item-{place:03}" for place in range(30))


def test_a_release_that_stopped_early_is_asked_about_its_own_items_again() -> None:
    blocks = replace(FINGERPRINT, sampling=canonical({"num_concurrent": 8, "batch_size": 1, "block": 32, "seed": 0}))
    release = make_report({f"item-{place:03}": 1.0 for place in range(50, 90)}, fingerprint=blocks)
    now = make_report([0.0] * 50 + [1.0] * 40 + [0.0] * 10)
    drift = judge_drift("tickets", release, now, None, replace(POLICY, block=32))
    assert (drift.verdict, drift.suites[0].decision.items_used) == ("passed", 40)
    with pytest.raises(ReportInvalid, match="lacks 1 of 40 items, such as 'item-089'"):
        judge_drift("tickets", release, make_report([1.0] * 89), None, POLICY)


def test_another_prompt_is_another_question_and_no_drift() -> None:
    other = make_report([1.0] * 90 + [0.0] * 10, fingerprint=replace(FINGERPRINT, prompt_sha256="9" * 64))
    with pytest.raises(FingerprintMismatch, match="prompt_sha256"):
        judge_drift("tickets", RELEASE, other, None, POLICY)


@pytest.mark.parametrize(("right", "verdict"), [(95, "passed"), (82, "inconclusive"), (50, "rejected")])
def test_fresh_items_are_held_against_the_releases_score_less_the_margin(right: int, verdict: str) -> None:
    """The release has 0.9, so the floor is 0.8. One-sided 95 % bounds by Clopper and Pearson: 95 of 100 has the lower bound
    0.897, 82 of 100 has 0.745 and 0.880, and 50 of 100 the upper bound 0.586."""
    fresh = make_report({f"new-{place}": float(place < right) for place in range(100)})
    drift = judge_drift("tickets", RELEASE, RELEASE, fresh, POLICY)
    old, new = drift.suites
    assert (old.decision.verdict, new.decision.verdict, drift.verdict) == ("passed", verdict, verdict)


def test_a_change_is_told_once(tmp_path: Path) -> None:
    told = [
        verdict_changed(tmp_path, "tickets", verdict)
        for verdict in ("passed", "passed", "rejected", "rejected", "passed")
    ]
    assert told == ["none", None, "passed", None, "rejected"]
