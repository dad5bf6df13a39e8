"""In which order the items of a suite are asked, and where the gate looks. Pure; random by a recorded seed.

The order is random within each stratum (items with the same slice values) and keeps the strata in proportion: after any
block each has its share of the items so far, to within one. Items of one cluster stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Placed:
    """What the order needs to know of an item. `cluster` is its own id where items are independent."""

    id: str
    cluster: str
    slices: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BlockPlan:
    """The ids of each block, in the order in which they are asked. `largest` is the most items in one cluster."""

    seed: int
    blocks: tuple[tuple[str, ...], ...]
    largest: int = 1

    @property
    def items(self) -> int:
        return sum(map(len, self.blocks))


def plan_blocks(items: Sequence[Placed], block: int, seed: int) -> BlockPlan:
    """Blocks of at least `block` items (the last may have fewer); the same for any order of `items`."""
    clusters: dict[str, list[Placed]] = {}
    for item in sorted(items, key=lambda item: item.id):
        clusters.setdefault(item.cluster, []).append(item)
    blocks: list[tuple[str, ...]] = []
    current: list[str] = []
    for name in _balanced(clusters, Random(seed)):
        current += [item.id for item in clusters[name]]
        if len(current) >= block:
            blocks.append(tuple(current))
            current = []
    largest = max(map(len, clusters.values()), default=1)
    return BlockPlan(seed, (*blocks, tuple(current)) if current else tuple(blocks), largest)


def _balanced(clusters: dict[str, list[Placed]], random: Random) -> list[str]:
    strata: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name in sorted(clusters):
        strata.setdefault(tuple(sorted({pair for item in clusters[name] for pair in item.slices})), []).append(name)
    placed: list[tuple[float, str]] = []
    for key in sorted(strata):
        names = strata[key]
        random.shuffle(names)
        start = random.random()
        placed += [((rank + start) / len(names), name) for rank, name in enumerate(names)]
    return [name for _, name in sorted(placed)]
