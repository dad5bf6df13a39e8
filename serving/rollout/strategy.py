"""Which canary strategy the memory allows, and why. Pure: numbers of the fit report in, a choice with its reason out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["adapter", "pool", "swap"]
GIB = 1024**3


@dataclass(frozen=True)
class Room:
    """`needed_bytes` and `usable_bytes` of one engine on one GPU; `served` adapters hold LoRA slots beside the candidate."""

    is_adapter: bool
    slots: int
    served: int
    needed_bytes: int
    usable_bytes: int


@dataclass(frozen=True)
class Choice:
    """`why` is one sentence for people."""

    strategy: Strategy
    why: str


def choose(room: Room) -> Choice:
    """adapter before pool before swap: the cheapest that can take the change without a gap comes first."""
    if room.is_adapter and room.served + 1 <= room.slots:
        return Choice(
            "adapter",
            f"one engine holds both: {room.served + 1} of {room.slots} LoRA slots are taken with the candidate",
        )
    first = (
        f"{room.served + 1} adapters for {room.slots} LoRA slots"
        if room.is_adapter
        else "the change is more than an adapter"
    )
    needed, usable = room.needed_bytes / GIB, room.usable_bytes / GIB
    if 2 * room.needed_bytes <= room.usable_bytes:
        return Choice("pool", f"{first}; two engines of {needed:.1f} GiB fit into {usable:.1f} GiB")
    return Choice(
        "swap",
        f"{first}; two engines of {needed:.1f} GiB do not fit into {usable:.1f} GiB: there is a gap while one replaces the other",
    )
