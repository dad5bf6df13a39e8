"""The order of the items: every one once, balanced over slices, clusters kept, the same for the same seed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from evals.gate_blocks import Placed, plan_blocks


def suite(count: int, clusters: int = 0) -> list[Placed]:
    return [
        Placed(f"i{n:03}", f"c{n % clusters}" if clusters else f"i{n:03}", (("team", "abc"[n % 3] if n % 5 else "a"),))
        for n in range(count)
    ]


@given(st.integers(1, 90), st.integers(1, 20), st.integers(0, 9), st.integers(0, 7))
def test_every_item_is_asked_once_and_clusters_stay_together(count: int, block: int, seed: int, clusters: int) -> None:
    items = suite(count, clusters)
    plan = plan_blocks(items, block, seed)
    asked = [name for one in plan.blocks for name in one]
    assert sorted(asked) == [item.id for item in items]
    assert all(len(one) >= block for one in plan.blocks[:-1])
    found = {item.id: item.cluster for item in items}
    for cluster in set(found.values()):
        assert sum(any(found[name] == cluster for name in one) for one in plan.blocks) == 1
    assert plan.largest == max(Counter(found.values()).values())
    assert plan.items == count


@given(st.integers(0, 50))
def test_after_every_block_each_slice_has_its_share(seed: int) -> None:
    items = suite(120)
    team = {item.id: item.slices[0][1] for item in items}
    total, asked = Counter(team.values()), Counter[str]()
    for number, block in enumerate(plan_blocks(items, 10, seed).blocks, 1):
        asked.update(team[name] for name in block)
        for name, count in total.items():
            assert abs(asked[name] - count * number * 10 / 120) <= 2


def test_the_order_is_the_seeds_and_not_the_files() -> None:
    items = suite(40)
    assert plan_blocks(items, 8, 3) == plan_blocks(items[::-1], 8, 3)
    assert plan_blocks(items, 8, 3) != plan_blocks(items, 8, 4)
