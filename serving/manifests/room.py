"""What a cluster has left for pods, as numbers: nodes, quotas and limits of a namespace. Values only; read_room.py reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

Amounts = Mapping[str, Decimal]  # resource → cores, bytes or pieces

CPU, MEMORY, GPU, PODS = "cpu", "memory", "nvidia.com/gpu", "pods"


@dataclass(frozen=True)
class Taint:
    """One that keeps pods away (NoSchedule, NoExecute)."""

    key: str
    value: str


@dataclass(frozen=True)
class Node:
    """`free` is allocatable less what the pods on it ask for."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    free: Amounts


@dataclass(frozen=True)
class Quota:
    """`left` is hard less used, under the quota's own names: requests.cpu, limits.memory, pods, requests.nvidia.com/gpu."""

    name: str
    left: Amounts


@dataclass(frozen=True)
class Room:
    """Of one namespace. `running`: members whose pods are there already, counted in nodes and quotas.

    `largest`: what a LimitRange lets one container ask for at most. `version`: of Kubernetes, such as (1, 36).
    """

    nodes: tuple[Node, ...]
    quotas: tuple[Quota, ...] = ()
    largest: Amounts = field(default_factory=dict)
    restricted: bool = False
    version: tuple[int, int] = (1, 36)
    running: frozenset[str] = frozenset()
