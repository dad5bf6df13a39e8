"""Several rules on pairs in blocks: stopping, Holm, slices, clusters, and the path that leads to the verdict."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.gate_blocks import BlockPlan, Placed, plan_blocks
from evals.gate_items import Pair, judge_pairs
from evals.gate_rules import Rule, adjusted, fewest_units
from evals.stats import paired_p

MARGIN = Rule("non_inferior", 0.05)


def pairs_of(better: int, worse: int, both: int, neither: int = 0) -> list[Pair]:
    outcomes = [(1.0, 0.0)] * better + [(0.0, 1.0)] * worse + [(1.0, 1.0)] * both + [(0.0, 0.0)] * neither
    random.Random(0).shuffle(outcomes)
    return [Pair(f"i{n}", new, old, f"i{n}") for n, (new, old) in enumerate(outcomes)]


def plan_for(pairs: Sequence[Pair], block: int = 8, seed: int = 0) -> BlockPlan:
    return plan_blocks([Placed(pair.id, pair.cluster, pair.slices) for pair in pairs], block, seed)


def test_a_much_worse_candidate_is_rejected_early_and_a_better_one_passes_early() -> None:
    bad, good = pairs_of(20, 220, 560), pairs_of(120, 30, 650)
    rejected = judge_pairs(bad, [MARGIN], 0.05, plan_for(bad))
    assert rejected.verdict == "rejected"
    assert len(rejected.used) < 100
    passed = judge_pairs(good, [MARGIN], 0.05, plan_for(good))
    assert passed.verdict == "passed"
    assert len(passed.used) < 400
    assert passed.finished


def test_the_path_ends_with_the_verdict_and_crosses_its_boundary_only_there() -> None:
    bad = pairs_of(20, 220, 560)
    result = judge_pairs(bad, [MARGIN], 0.05, plan_for(bad)).results[0]
    assert [look.items for look in result.path] == sorted({look.items for look in result.path})
    assert result.path[-1].items == result.items_used
    assert result.path[-1].estimate < result.path[-1].fails_below
    assert all(look.estimate >= look.fails_below for look in result.path[:-1])
    assert all(look.low <= look.estimate <= look.high for look in result.path)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_asking_again_after_each_block_gives_the_verdict_of_the_whole_run(better: int, worse: int, seed: int) -> None:
    pairs = pairs_of(better, worse, 300)
    plan, by_id = plan_for(pairs, 24, seed), {pair.id: pair for pair in pairs}
    whole = judge_pairs(pairs, [MARGIN], 0.05, plan)
    asked: list[Pair] = []
    for block in plan.blocks:
        asked += [by_id[name] for name in block]
        so_far = judge_pairs(asked, [MARGIN], 0.05, plan)
        if so_far.finished:
            break
    assert so_far == whole


def test_clusters_of_other_sizes_later_do_not_change_what_was_shown_before() -> None:
    pairs = [
        Pair(f"{cluster}-{n}", float((cluster + n) % 3 > 0), 0.0, f"c{cluster}")
        for cluster in range(12)
        for n in range(1 + 4 * (cluster == 11))
    ]
    plan = BlockPlan(0, tuple(tuple(p.id for p in pairs if p.cluster == f"c{c}") for c in range(12)), 5)
    rule = [Rule("superior", 0.9)]  # not decided
    early = judge_pairs(pairs[:6], rule, 0.05, plan).results[0].path
    assert judge_pairs(pairs[:9], rule, 0.05, plan).results[0].path[:6] == early


def test_what_is_no_whole_block_is_refused() -> None:
    pairs = pairs_of(5, 5, 30)
    with pytest.raises(ValueError, match="not the first whole blocks"):
        judge_pairs(pairs[:3], [MARGIN], 0.05, plan_for(pairs))


def test_twins_do_not_add_evidence() -> None:
    single = pairs_of(30, 12, 60)
    twins = [replace(pair, id=f"{pair.id}-{n}") for pair in single for n in range(4)]
    alone = judge_pairs(single, [Rule("superior", 0.0)], 0.05, None).results[0]
    together = judge_pairs(twins, [Rule("superior", 0.0)], 0.05, None).results[0]
    ignored = judge_pairs([replace(p, cluster=p.id) for p in twins], [Rule("superior", 0.0)], 0.05, None).results[0]
    assert together.method == "cluster-robust t"
    assert together.estimate == pytest.approx(alone.estimate)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert ignored.high - ignored.low < 0.6 * (alone.high - alone.low)


def test_a_slice_that_got_worse_rejects_though_the_whole_is_better() -> None:
    good = [replace(pair, slices=(("lang", "en"),)) for pair in pairs_of(150, 10, 340)]
    bad = [replace(p, id=f"de-{p.id}", cluster=f"de-{p.id}", slices=(("lang", "de"),)) for p in pairs_of(2, 60, 100)]
    rules = [MARGIN, Rule("non_inferior", 0.05, ("lang", "de"))]
    found = judge_pairs([*good, *bad], rules, 0.05, plan_for([*good, *bad]))
    assert found.verdict == "rejected"
    assert [(result.slice, result.verdict) for result in found.results][1] == ("lang=de", "rejected")
    assert found.results[0].verdict != "rejected"


def test_holm_against_the_published_steps() -> None:
    # S. Holm 1979: multiply the smallest by 3, the next by 2, and never let one be below those in front of it
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert adjusted([0.5, 0.02]) == pytest.approx((0.5, 0.04))


def test_more_rules_need_more_evidence() -> None:
    pairs, superior = pairs_of(31, 15, 154), Rule("superior", 0.0)
    alpha = 1.5 * paired_p(31, 15, 200, 0.0)  # enough for one rule, not for the first of two
    assert judge_pairs(pairs, [superior], alpha, None).verdict == "passed"
    hard = Rule("floor", 0.95)
    assert judge_pairs(pairs, [superior, hard], alpha, None).results[0].verdict == "inconclusive"


@pytest.mark.parametrize("rule", [MARGIN, Rule("superior", 0.1), Rule("floor", 0.9)])
def test_with_one_unit_less_than_the_fewest_even_perfection_does_not_pass(rule: Rule) -> None:
    fewest = fewest_units(rule, 0.05)
    perfect = pairs_of(fewest, 0, 0)
    assert judge_pairs(perfect, [rule], 0.05, None).verdict == "passed"
    assert judge_pairs(perfect[:-1], [rule], 0.05, None).verdict == "inconclusive"
