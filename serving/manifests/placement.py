"""Whether pods find nodes, whatever the scheduler chooses: every order and every choice of a node that has room is looked at. Pure.

The scheduler places pod by pod and moves none, so what fits in one order may not fit in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache

from serving.manifests.needs import Need
from serving.manifests.room import Node

Free = tuple[tuple[Decimal, ...], ...]  # of each node: what is left, in the order of the resources


def placed(needs: Sequence[Need], nodes: Sequence[Node]) -> tuple[bool, bool]:
    """(in some order, in every order) all pods find a node."""
    resources = sorted({name for need in needs for name in need.requests})
    asked = [tuple(need.requests.get(name, Decimal(0)) for name in resources) for need in needs]
    open_to = [tuple(at for at, node in enumerate(nodes) if accepts(node, need)) for need in needs]
    start: Free = tuple(tuple(node.free.get(name, Decimal(0)) for name in resources) for node in nodes)

    @cache
    def search(left: tuple[int, ...], free: Free) -> tuple[bool, bool]:
        if not any(left):
            return True, True
        some, every = False, True
        for which in (at for at, count in enumerate(left) if count):
            rest = tuple(count - (at == which) for at, count in enumerate(left))
            chosen = [at for at in open_to[which] if _fits(asked[which], free[at])]
            every = every and bool(chosen)
            for at in _different(chosen, free, open_to):
                after = (*free[:at], _less(free[at], asked[which]), *free[at + 1 :])
                can, must = search(rest, after)
                some, every = some or can, every and must
        return some, every

    return search(tuple(need.count for need in needs), start)


def accepts(node: Node, need: Need) -> bool:
    """Labels and taints; not room."""
    labelled = all(node.labels.get(key) == value for key, value in need.node_labels.items())
    return labelled and all(taint.key in need.tolerated for taint in node.taints)


def _fits(asked: tuple[Decimal, ...], free: tuple[Decimal, ...]) -> bool:
    """A resource that is not asked for does not count, even where a node has less than nothing of it."""
    return all(not want or want <= has for want, has in zip(asked, free, strict=True))


def _less(free: tuple[Decimal, ...], asked: tuple[Decimal, ...]) -> tuple[Decimal, ...]:
    return tuple(has - want for has, want in zip(free, asked, strict=True))


def _different(chosen: list[int], free: Free, open_to: list[tuple[int, ...]]) -> list[int]:
    """One of each sort of node: those with the same room that the same pods may use lead to the same end."""
    sorts = {(free[at], tuple(at in places for places in open_to)): at for at in reversed(chosen)}
    return list(sorts.values())
