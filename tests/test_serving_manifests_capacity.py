"""Schedulable or refused because: numbers of nodes and quotas against what a model asks for. The real scheduler judges the same in
test_serving_manifests_cluster.py and in `make bench-cluster`."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from serving.manifests.capacity import NotSchedulable, can_surge, hold, judge
from serving.manifests.model import Resources
from serving.manifests.needs import needs
from serving.manifests.placement import placed
from serving.manifests.room import Node, Quota, Room, Taint
from tasks.exit_codes import code_of
from tests.fix_rendered import desired, member, on_one_engine

GIB = 2**30
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
GPU = "nvidia.com/gpu"


def node(name: str, cpu: str = "3.92", memory: int = 13, gpus: int = 1) -> Node:
    free = {"cpu": Decimal(cpu), "memory": Decimal(memory * GIB), GPU: Decimal(gpus), "pods": Decimal(110)}
    return Node(name, L4 if gpus else {}, (Taint("nvidia.com/gpu", "present"),) if gpus else (), free)


CPU_NODE = node("cpu-0", "4", 16, 0)


def room(*nodes: Node, **changes: Any) -> Room:
    return Room(nodes=(CPU_NODE, *nodes), **changes)


def reasons(wanted: Any, where: Room) -> str:
    return "; ".join(judge(wanted, where).reasons)


def test_a_pool_canary_needs_two_gpus() -> None:
    assert judge(desired(), room(node("a"), node("b"))).schedulable
    said = reasons(desired(), room(node("a")))
    assert "ticket-router-v3 and ticket-router-v4 need 2 GPUs" in said
    assert "1 free" in said
    assert "strategy swap (one engine at a time, with a gap)" in said


def test_one_gpu_takes_an_adapter_canary_and_a_swap() -> None:
    assert judge(on_one_engine(), room(node("a"))).schedulable
    assert judge(desired(strategy="swap", weight=0), room(node("a"))).schedulable
    two = desired(stable=replace(on_one_engine().stable), candidate=on_one_engine().candidate)
    assert "strategy adapter" in reasons(two, room(node("a")))


def test_what_runs_already_is_not_placed_again() -> None:
    used = room(node("a", gpus=0), node("b"), running=frozenset({"ticket-router-v3"}))
    assert judge(desired(), used).schedulable
    assert not judge(desired(), replace(used, running=frozenset())).schedulable


def test_a_quota_without_a_second_gpu() -> None:
    quota = Quota("gpus", {"requests.nvidia.com/gpu": Decimal(1)})
    said = reasons(desired(), room(node("a"), node("b"), quotas=(quota,)))
    assert "quota gpus has 1 of requests.nvidia.com/gpu left, and 2 are needed" in said


def test_a_quota_counts_the_sidecar_and_the_pickers() -> None:
    """Two engines of 8 GiB, two pickers of 256 MiB, and KServe's 15 MiB beside each engine."""
    needed = Decimal(2 * (8 * GIB + 256 * 2**20 + 15 * 2**20))
    for left, fits in ((needed, True), (needed - 1, False)):
        quota = Quota("memory", {"requests.memory": left, "pods": Decimal(4)})
        assert judge(desired(), room(node("a"), node("b"), quotas=(quota,))).schedulable is fits


def test_a_node_must_hold_all_of_one_pod() -> None:
    """GPU on one node and memory on another do not add up."""
    assert not judge(
        desired(strategy="swap", weight=0), room(node("a", memory=4), node("b", memory=64, gpus=0))
    ).schedulable


def test_no_node_of_the_kind() -> None:
    other = replace(node("a"), labels={"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"})
    assert "none has cloud.google.com/gke-accelerator=nvidia-l4" in reasons(desired(), room(other))
    dedicated = replace(node("a"), taints=(Taint("team", "a"),))
    assert not judge(desired(strategy="swap", weight=0), room(dedicated)).schedulable


def test_the_restricted_standard_refuses_kserves_sidecar() -> None:
    where = room(node("a"), node("b"), restricted=True)
    assert "restricted" in reasons(desired(), where)
    assert judge(desired(form="deployment"), where).schedulable


def test_image_volumes_need_a_new_kubernetes() -> None:
    assert "1.35" in reasons(desired(form="deployment"), room(node("a"), node("b"), version=(1, 34)))


def test_a_limit_range() -> None:
    where = room(node("a"), node("b"), largest={"memory": Decimal(10 * GIB)})
    assert "memory limit of 12 GiB, and the LimitRange allows 10 GiB" in reasons(desired(), where)


def test_what_depends_on_the_schedulers_order_is_refused() -> None:
    """One engine of two GPUs, one of one; a node with two and one with one."""
    large = member("3", resources=Resources(gpus=2))
    wanted = desired(stable=large, candidate=member("4"))
    answer = judge(wanted, room(node("a", "8", 64, 2), node("b")))
    assert not answer.schedulable and not answer.certain
    assert "one order" in answer.reasons[0]
    assert judge(wanted, room(node("a", "8", 64, 2), node("b", "8", 64, 1), node("c", "8", 64, 2))).certain


def test_the_search_agrees_with_counting_where_all_pods_are_alike() -> None:
    """Then the order does not matter: each node takes as many as its scarcest resource allows."""
    for gpus in range(4):
        for replicas in range(1, 4):
            wanted = desired(stable=member("3", replicas=replicas), candidate=None, weight=0)
            nodes = [node("a", "8", 64, gpus), node("b", "4", 20, gpus)]
            engines = [need for need in needs(wanted) if need.requests.get(GPU)]
            fitting = sum(min(gpus, cpus, memory) for cpus, memory in ((3, 7), (1, 2)))  # 2.01 CPU and 8.01 GiB a pod
            assert placed(engines, nodes) == (replicas <= fitting,) * 2


def test_surge_is_decided_by_the_room_for_one_more() -> None:
    assert can_surge(on_one_engine(), room(node("a")))
    assert not can_surge(on_one_engine(), room(node("a", gpus=0)))


def test_it_is_refused_with_exit_code_3() -> None:
    with pytest.raises(NotSchedulable, match=r"ticket-router in serving: .*need 2 GPUs") as caught:
        hold(desired(), room(node("a")))
    assert code_of(caught.value) == 3
