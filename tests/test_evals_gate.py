"""Verdicts of the gate on reports made by hand. What cannot be judged is never passed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.gate import GateDecision, GatePolicy, decide
from evals.gate_cases import cases_refuse
from evals.report import ReportInvalid
from evals.stats import paired_low
from tests.fix_reports import make_report

HALF = [1.0] * 50 + [0.0] * 50
GOOD = [1.0] * 90 + [0.0] * 10
BAD = [1.0] * 20 + [0.0] * 80
POLICY = GatePolicy()


def verdicts(decision: GateDecision) -> dict[str, str]:
    return {rule.name: rule.verdict for rule in decision.rules}


def test_a_better_candidate_passes_with_its_interval_and_reasons() -> None:
    decision = decide(make_report(GOOD, model="good"), make_report(HALF), GatePolicy(floor=0.8))
    assert decision.verdict == "passed"
    superior = decision.rules[0]
    assert (superior.name, superior.required) == ("superior", 0.0)
    assert superior.estimate == pytest.approx(0.4)
    assert superior.low == paired_low(40, 0, 100, 0.0, 0.025)  # the smaller p-value of two rules
    assert superior.high == -paired_low(0, 40, 100, 0.0, 0.025)
    assert verdicts(decision)["floor"] == "passed"
    assert decision.reasons[0].startswith("exact_match,none is 0.900 against 0.500 for the baseline base")
    assert "40 items better, 0 worse of 100" in decision.reasons[0]
    assert (decision.candidate, decision.baseline) == ("good", "base")
    assert (decision.items_used, decision.items_available) == (100, 100)


def test_a_baseline_that_is_registered_is_named_by_its_version() -> None:
    baseline = make_report(HALF, {"case-a": "errored"}, model="eval-ticket-router-5b00e518f4ae")
    decision = decide(make_report(GOOD, {"case-a": "passed"}), baseline, POLICY, baseline_version="7")
    assert any("0.500 for the baseline version 7: a difference" in reason for reason in decision.reasons)
    assert decision.reasons[0].startswith("1 promptfoo cases of the baseline version 7 errored")
    assert not any("5b00e518f4ae" in reason for reason in decision.reasons)


def test_a_worse_candidate_is_rejected() -> None:
    decision = decide(make_report(BAD), make_report(HALF), POLICY)
    assert decision.verdict == "rejected"
    assert decision.item_flips.newly_failing == tuple(f"item-{i:03}" for i in range(20, 50))
    assert decision.item_flips.newly_passing == ()


def test_the_same_model_against_itself_is_neither_superior_nor_rejected() -> None:
    decision = decide(make_report(GOOD), make_report(GOOD), POLICY)
    assert decision.verdict == "inconclusive"
    assert "too near to what is required for any number of items" in decision.reasons[0]


def test_the_same_model_is_not_inferior_to_itself() -> None:
    scores = GOOD * 5
    policy = GatePolicy(rule="non_inferior", margin=0.05)
    decision = decide(make_report(scores), make_report(scores), policy)
    assert decision.verdict == "passed"
    assert decision.rules[0].required == -0.05


def test_a_candidate_below_the_margin_of_non_inferiority_is_rejected() -> None:
    decision = decide(make_report(BAD), make_report(HALF), GatePolicy(rule="non_inferior", margin=0.05))
    assert decision.verdict == "rejected"


def test_superiority_by_a_margin() -> None:
    candidate, baseline = make_report(GOOD), make_report(HALF)  # 40 points better, at least 31 at 95 %
    assert decide(candidate, baseline, GatePolicy(margin=0.3)).verdict == "passed"
    assert decide(candidate, baseline, GatePolicy(margin=0.4)).verdict == "inconclusive"
    assert decide(candidate, baseline, GatePolicy(margin=0.6)).verdict == "rejected"


@pytest.mark.parametrize(("floor", "verdict"), [(0.8, "passed"), (0.9, "inconclusive"), (0.97, "rejected")])
def test_the_floor_holds_the_lower_bound(floor: float, verdict: str) -> None:
    decision = decide(make_report(GOOD), make_report(HALF), GatePolicy(floor=floor))
    assert verdicts(decision)["floor"] == verdict
    assert decision.verdict == verdict
    # Clopper and Pearson for 90 of 100, by scipy.stats.beta: 5 % on each side where the other rule was shown first
    ends = {0.8: "0.836 and 0.945", 0.9: "0.824 and 0.951", 0.97: "0.824 and 0.951"}[floor]
    assert any(f"0.900, between {ends}" in reason for reason in decision.reasons)


def test_graded_scores_are_judged() -> None:
    low, high = [0.1, 0.2, 0.3, 0.2] * 30, [0.7, 0.9, 0.8, 0.7] * 30
    assert decide(make_report(high), make_report(low), POLICY).verdict == "passed"
    assert decide(make_report(low), make_report(high), POLICY).verdict == "rejected"


def test_too_few_items_are_inconclusive_however_good() -> None:
    decision = decide(make_report([1.0] * 60), make_report([0.0] * 60), POLICY)
    assert decision.verdict == "inconclusive"
    assert decision.reasons[0] == "60 items were evaluated; the policy needs 100: evaluate on more items."


def test_a_single_item_is_inconclusive() -> None:
    assert decide(make_report([1.0]), make_report([0.0]), GatePolicy(floor=0.5)).verdict == "inconclusive"


def test_cases_below_the_pass_rate_reject() -> None:
    cases: dict[str, Any] = {"a": "passed", "b": "passed", "c": "failed"}
    decision = decide(make_report(GOOD, cases), make_report(HALF, cases), GatePolicy(min_case_pass_rate=0.7))
    assert decision.verdict == "rejected"
    assert decision.reasons[0] == "2 of 3 promptfoo cases pass (0.67); 0.70 is required: rejected."
    lenient = GatePolicy(min_case_pass_rate=0.6)
    assert decide(make_report(GOOD, cases), make_report(HALF, cases), lenient).verdict == "passed"


def test_a_case_that_the_baseline_passes_may_not_fail() -> None:
    new: dict[str, Any] = {"a": "failed", "b": "passed", "c": "passed"}
    old: dict[str, Any] = {"a": "passed", "b": "failed", "c": "passed"}
    policy = GatePolicy(min_case_pass_rate=0.5)
    decision = decide(make_report(GOOD, new), make_report(HALF, old), policy)
    assert decision.verdict == "rejected"
    assert (decision.case_flips.newly_failing, decision.case_flips.newly_passing) == (("a",), ("b",))
    assert "now fail (a); 0 are allowed" in decision.reasons[0]
    allowing = replace(policy, max_newly_failing_cases=1)
    assert decide(make_report(GOOD, new), make_report(HALF, old), allowing).verdict == "passed"


@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_an_errored_case_is_inconclusive_and_not_failed(side: str) -> None:
    fine: dict[str, Any] = {"a": "passed", "b": "passed"}
    errored: dict[str, Any] = {"a": "passed", "b": "errored"}
    new, old = (errored, fine) if side == "candidate" else (fine, errored)
    decision = decide(make_report(GOOD, new, model="good"), make_report(HALF, old), POLICY)
    assert decision.verdict == "inconclusive"
    assert (
        f"1 promptfoo cases of the {'candidate' if side == 'candidate' else 'baseline base'} errored"
        in decision.reasons[0]
    )
    assert "rejected" not in verdicts(decision).values()


def test_an_errored_case_does_not_save_a_rejected_candidate() -> None:
    cases: dict[str, Any] = {"a": "errored"}
    decision = decide(make_report(BAD, cases), make_report(HALF, cases), POLICY)
    assert decision.verdict == "rejected"
    assert "inconclusive" in verdicts(decision).values()


def test_a_policy_with_cases_is_not_passed_without_them() -> None:
    decision = decide(make_report(GOOD, {}), make_report(HALF, {}), POLICY)
    assert decision.verdict == "inconclusive"
    assert "No promptfoo case was judged" in decision.reasons[0]
    assert decide(make_report(GOOD, {}), make_report(HALF, {}), GatePolicy(min_case_pass_rate=0)).verdict == "passed"


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["passed", "failed"]), min_size=1, max_size=12), st.integers(1, 12), st.floats(0, 1))
def test_cases_refuse_a_candidate_early_only_where_all_of_them_would(
    outcomes: list[Any], asked: int, rate: float
) -> None:
    """Whatever the baseline did: the rest may all pass, and then the verdict of the whole must still be a no."""
    whole: dict[str, Any] = {f"case-{number:02}": outcome for number, outcome in enumerate(outcomes)}
    first = dict(list(whole.items())[:asked])
    base = dict.fromkeys(whole, "failed")
    policy = GatePolicy(min_case_pass_rate=rate, max_newly_failing_cases=0)
    refused = cases_refuse(
        make_report(GOOD, first), make_report(HALF, dict(list(base.items())[:asked])), policy, len(whole)
    )
    best = {**dict.fromkeys(whole, "passed"), **first}
    decision = decide(make_report(GOOD, best), make_report(HALF, base), policy)
    assert refused == (decision.verdict == "rejected")


def test_a_case_that_fails_newly_ends_the_cases_at_once() -> None:
    new, old = make_report(GOOD, {"a": "failed"}), make_report(HALF, {"a": "passed"})
    policy = GatePolicy(min_case_pass_rate=0)
    assert cases_refuse(new, old, policy, 100)
    assert not cases_refuse(new, old, replace(policy, max_newly_failing_cases=1), 100)
    assert not cases_refuse(make_report(GOOD, {"a": "errored"}), old, replace(policy, min_case_pass_rate=1), 100)


def test_items_of_one_cluster_widen_the_interval_and_need_no_slice() -> None:
    twins = [replace(item, cluster=f"dialogue {place // 4}") for place, item in enumerate(make_report(GOOD).items)]
    new = replace(make_report(GOOD), items=tuple(twins))
    old = replace(
        make_report(HALF),
        items=tuple(replace(item, cluster=twins[i].cluster) for i, item in enumerate(make_report(HALF).items)),
    )
    alone = decide(new, old, GatePolicy(min_case_pass_rate=0)).rules[0]
    together = decide(new, old, GatePolicy(min_case_pass_rate=0, cluster="dialogue")).rules[0]
    assert (together.method, alone.method) == ("cluster-robust t", "exact test")
    assert together.estimate == alone.estimate
    with pytest.raises(ReportInvalid, match="lacks the column 'dialogue' that names its cluster"):
        decide(make_report(GOOD), make_report(HALF), GatePolicy(cluster="dialogue"))


def test_items_that_fail_in_every_repeat_are_named() -> None:
    good = make_report(GOOD)
    items = (
        replace(good.items[0], score=0.0, scores=(0.0, 0.0)),
        replace(good.items[1], score=0.5, scores=(1.0, 0.0)),
        *good.items[2:],
    )
    report = replace(good, items=items, metrics=(("exact_match,none", sum(item.score for item in items) / len(items)),))
    decision = decide(report, make_report(HALF), GatePolicy(min_case_pass_rate=0))
    assert decision.always_failing == (items[0].id,)
    assert decision.reasons[-1] == f"1 items failed in every repeat: {items[0].id}."


def test_a_missing_metric_is_refused() -> None:
    with pytest.raises(ReportInvalid, match="lacks the metric 'f1,none'; it has exact_match,none"):
        decide(make_report(GOOD), make_report(HALF), GatePolicy(metric="f1,none"))


def test_a_metric_that_contradicts_its_items_is_refused() -> None:
    forged = replace(make_report(BAD), metrics=(("exact_match,none", 0.99),))
    with pytest.raises(ReportInvalid, match=r"says exact_match,none 0\.990000; its items' mean is 0\.200000"):
        decide(forged, make_report(HALF), POLICY)


@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_broken_reports_are_refused_on_either_side(side: str) -> None:
    fine, empty = make_report(GOOD), replace(make_report(GOOD), items=(), n=0)
    sides = (empty, fine) if side == "candidate" else (fine, empty)
    with pytest.raises(ReportInvalid, match="no items"):
        decide(*sides, POLICY)


def test_items_are_paired_by_id_and_not_by_order() -> None:
    scores = {f"item-{i:03}": score for i, score in enumerate(HALF)}
    backwards = dict(reversed(list(scores.items())))
    decision = decide(make_report(backwards), make_report(scores), POLICY)
    assert decision.rules[0].estimate == 0
    assert decision.item_flips.newly_failing == ()


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=150),
    st.lists(st.sampled_from(["passed", "failed", "errored"]), max_size=4),
    st.lists(st.sampled_from(["passed", "failed", "errored"]), max_size=4),
)
def test_passed_means_that_every_promise_holds(
    pairs: list[tuple[bool, bool]], new_cases: list[str], old_cases: list[str]
) -> None:
    size = min(len(new_cases), len(old_cases))
    new: dict[str, Any] = {f"c{i}": outcome for i, outcome in enumerate(new_cases[:size])}
    old: dict[str, Any] = {f"c{i}": outcome for i, outcome in enumerate(old_cases[:size])}
    candidate = make_report([float(new) for new, _ in pairs], new)
    baseline = make_report([float(old) for _, old in pairs], old)
    policy = GatePolicy(min_items=20, floor=0.5, min_case_pass_rate=0.5)
    decision = decide(candidate, baseline, policy)
    assert decision.reasons
    if decision.verdict == "passed":
        better, worse = sum(n and not o for n, o in pairs), sum(o and not n for n, o in pairs)
        assert better > worse
        assert sum(n for n, _ in pairs) >= len(pairs) / 2
        assert len(pairs) >= 20
        assert "errored" not in {*new.values(), *old.values()}
        assert not [key for key in new if new[key] == "failed" and old[key] == "passed"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"rule": "non_inferior"}, "above 0 for non_inferior"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"min_items": 1}, "min_items is 1"),
        ({"min_case_pass_rate": 1.5}, "min_case_pass_rate is 1.5"),
    ],
)
def test_a_policy_that_cannot_decide_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GatePolicy(**changes)
