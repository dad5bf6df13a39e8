"""Schedulable, or refused because: a model's pods against the nodes, quotas and limits that were read. Pure.

It is strict: what would run only if the scheduler happens to choose well is refused too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from serving.manifests.model import Desired
from serving.manifests.modelcars import image_volumes
from serving.manifests.needs import Need, needs
from serving.manifests.placement import accepts, placed
from serving.manifests.room import GPU, PODS, Amounts, Quota, Room

IMAGE_VOLUMES = (1, 35)
GIB = Decimal(2**30)


class NotSchedulable(Exception):
    """The cluster has no room for it: nothing is rendered or applied."""


@dataclass(frozen=True)
class Answer:
    """`certain`: False where another order of the scheduler would have placed all pods."""

    reasons: tuple[str, ...]
    certain: bool = True

    @property
    def schedulable(self) -> bool:
        return not self.reasons


def judge(desired: Desired, room: Room) -> Answer:
    """Every reason against it. Raises NotStampable."""
    wanted = tuple(need for need in needs(desired) if need.name not in room.running)
    reasons = [*_namespace(desired, room), *_limits(wanted, room), *_quotas(wanted, room.quotas)]
    some, every = placed(wanted, room.nodes)
    certain = bool(reasons) or every or not some
    if not every:
        lacking = [reason for need in wanted if (reason := _alone(need, room))]
        reasons += lacking or [_together(wanted, room, some)]
    if reasons and desired.strategy == "pool" and len(desired.members) > 1:
        reasons.append(_other_strategies(desired))
    return Answer(tuple(reasons), certain)


def hold(desired: Desired, room: Room) -> None:
    """Raises NotSchedulable."""
    answer = judge(desired, room)
    if not answer.schedulable:
        raise NotSchedulable(f"{desired.model} in {desired.namespace}: {'; '.join(answer.reasons)}")


def can_surge(desired: Desired, room: Room) -> bool:
    """Whether one more engine finds a place beside those that run, so that an update leaves no gap."""
    member = desired.members[-1]
    alone = replace(desired, stable=replace(member, replicas=1), candidate=None, weight=0)
    return judge(alone, replace(room, running=frozenset())).schedulable


def _namespace(desired: Desired, room: Room) -> Iterator[str]:
    if desired.form == "inferenceservice" and room.restricted:
        yield (
            f"namespace {desired.namespace} enforces the restricted Pod Security Standard, and KServe 0.19 gives its "
            "containers modelcar and modelcar-init no securityContext that passes; use form deployment, or enforce baseline"
        )
    if room.version < IMAGE_VOLUMES and image_volumes(desired, desired.members[-1]):
        instead = "form inferenceservice" if desired.form == "deployment" else "strategy pool or swap"
        yield f"Kubernetes is {_dotted(room.version)} and image volumes need {_dotted(IMAGE_VOLUMES)}; use {instead}"


def _limits(wanted: tuple[Need, ...], room: Room) -> Iterator[str]:
    for need in wanted:
        for resource, most in room.largest.items():
            asked = max((each.get(resource, Decimal(0)) for each in need.containers), default=Decimal(0))
            if asked > most:
                sizes = _size(resource, asked), _size(resource, most)
                yield f"a container of {need.name} has a {resource} limit of {sizes[0]}, and the LimitRange allows {sizes[1]}"


def _quotas(wanted: tuple[Need, ...], quotas: tuple[Quota, ...]) -> Iterator[str]:
    for quota in quotas:
        for key, left in quota.left.items():
            asked = sum((need.count * _counted(need, key) for need in wanted), Decimal(0))
            if asked > left:
                resource = key.partition(".")[2] or key
                yield f"quota {quota.name} has {_size(resource, left)} of {key} left, and {_size(resource, asked)} are needed"


def _counted(need: Need, key: str) -> Decimal:
    """What one pod counts under a quota's key; a bare cpu or memory is of requests."""
    kind, _, resource = key.partition(".")
    if key == PODS or key == "count/pods":
        return Decimal(1)
    if kind == "limits":
        return need.limits.get(resource, Decimal(0))
    return need.requests.get(resource if kind == "requests" else key, Decimal(0))


def _alone(need: Need, room: Room) -> str:
    """Why these pods find no place even if nothing else is placed; empty where they do."""
    fitting = [node for node in room.nodes if accepts(node, need)]
    selector = ", ".join(f"{key}={value}" for key, value in need.node_labels.items())
    if not fitting:
        return f"no node takes {need.name}" + (
            f": none has {selector} and only taints that it tolerates" if selector else ""
        )
    if placed((need,), room.nodes)[0]:
        return ""
    found = _rooms(need, room)
    return f"{need.name} needs {need.count} × ({_amounts(need.requests)}), and the {len(fitting)} nodes that take it have room for {found}"


def _rooms(need: Need, room: Room) -> int:
    """How many of these pods the nodes take together."""
    return sum(
        min(max(0, int(node.free.get(name, Decimal(0)) // size)) for name, size in need.requests.items() if size)
        for node in room.nodes
        if accepts(node, need)
    )


def _together(wanted: tuple[Need, ...], room: Room, some: bool) -> str:
    gpus = sum((need.count * need.requests.get(GPU, Decimal(0)) for need in wanted), Decimal(0))
    free = sum((max(Decimal(0), node.free.get(GPU, Decimal(0))) for node in room.nodes), Decimal(0))
    names = " and ".join(need.name for need in wanted if need.requests.get(GPU))
    if some:
        return f"{names} fit only if the scheduler happens to place them in one order; make their requests alike, or add a node"
    return f"{names} need {gpus} GPUs together with their CPU and memory, and the nodes have {free} free"


def _other_strategies(desired: Desired) -> str:
    adapters = all(member.adapter for member in desired.members)
    one = "strategy adapter (one engine for both), or " if adapters else ""
    return f"use {one}strategy swap (one engine at a time, with a gap), or add a GPU"


def _amounts(amounts: Amounts) -> str:
    return ", ".join(f"{_size(name, size)} {name}" for name, size in amounts.items() if size and name != PODS)


def _size(resource: str, size: Decimal) -> str:
    return f"{size / GIB:.4g} GiB" if resource == "memory" else f"{size.normalize():f}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
