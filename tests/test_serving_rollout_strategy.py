"""The choice of a strategy: an adapter where slots are left, a second engine where memory is, else one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout.strategy import GIB, Room, choose


@pytest.mark.parametrize(
    ("room", "strategy", "why"),
    [
        (Room(True, 4, 1, 9 * GIB, 20 * GIB), "adapter", "one engine holds both: 2 of 4 LoRA slots are taken with the candidate"),
        (Room(True, 4, 3, 9 * GIB, 20 * GIB), "adapter", "one engine holds both: 4 of 4 LoRA slots are taken with the candidate"),
        (Room(True, 4, 4, 9 * GIB, 20 * GIB), "pool", "5 adapters for 4 LoRA slots; two engines of 9.0 GiB fit into 20.0 GiB"),
        (Room(False, 4, 0, 10 * GIB, 20 * GIB), "pool", "the change is more than an adapter; two engines of 10.0 GiB fit into 20.0 GiB"),
        (Room(False, 4, 0, 12 * GIB, 20 * GIB), "swap", "two engines of 12.0 GiB do not fit into 20.0 GiB"),
    ],
)  # fmt: skip
def test_the_cheapest_without_a_gap_comes_first(room: Room, strategy: str, why: str) -> None:
    found = choose(room)
    assert found.strategy == strategy
    assert why in found.why


@given(st.booleans(), st.integers(1, 64), st.integers(0, 64), st.integers(1, 2**40), st.integers(1, 2**40))
def test_nothing_is_chosen_that_has_no_room(
    is_adapter: bool, slots: int, served: int, needed: int, usable: int
) -> None:
    found = choose(Room(is_adapter, slots, served, needed, usable))
    if found.strategy == "adapter":
        assert is_adapter and served < slots
    if found.strategy == "pool":
        assert 2 * needed <= usable
