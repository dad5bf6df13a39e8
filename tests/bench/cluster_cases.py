"""Random clusters and releases for the cluster bench: nodes, a quota, a LimitRange, a training Job, and a model to deliver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from serving.manifests.model import Desired, Resources
from tests.fix_rendered import adapter_member, desired, member

SIZES = {
    1: ("3920m", "13Gi"),
    2: ("7910m", "28Gi"),
    4: ("23900m", "88Gi"),
}  # GPUs of a node → CPU and memory of its machine


@dataclass(frozen=True)
class Case:
    """`nodes`: GPUs of each. `job`: GPUs that a queued training Job asks for; 0: none. `queue`: GPUs of Kueue's quota."""

    nodes: tuple[int, ...]
    quota: dict[str, str]
    largest_memory: str | None
    job: int
    queue: int
    restricted: bool
    model: Desired

    def __repr__(self) -> str:
        """What a person needs to see of it."""
        members = [(each.version, each.replicas, each.resources) for each in self.model.members]
        return (
            f"nodes {self.nodes}, quota {self.quota}, LimitRange {self.largest_memory}, job {self.job} of {self.queue}, restricted "
            f"{self.restricted}, {self.model.strategy} {self.model.form} {self.model.weight} %, {members}"
        )


def resources() -> st.SearchStrategy[Resources]:
    return st.builds(
        Resources,
        cpu=st.sampled_from(["1", "2", "3500m", "7"]),
        cpu_limit=st.just("8"),
        memory=st.sampled_from(["4Gi", "8Gi", "12Gi", "24Gi"]),
        memory_limit=st.just("24Gi"),
        gpus=st.sampled_from([1, 1, 1, 2]),
    )


def quotas() -> st.SearchStrategy[dict[str, str]]:
    amounts = {
        "requests.nvidia.com/gpu": st.integers(0, 6).map(str),
        "requests.cpu": st.integers(1, 16).map(str),
        "requests.memory": st.integers(4, 64).map(lambda size: f"{size}Gi"),
        "limits.memory": st.integers(16, 128).map(lambda size: f"{size}Gi"),
        "pods": st.integers(1, 10).map(str),
    }
    some = st.lists(st.sampled_from(sorted(amounts)), max_size=2, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries({name: amounts[name] for name in names}))


@st.composite
def models(draw: st.DrawFn) -> Desired:
    """Of every strategy; InferenceServices now and then, since KServe takes seconds for each."""
    strategy = draw(st.sampled_from(["pool", "pool", "adapter", "swap"]))
    made = adapter_member if strategy == "adapter" else member
    shared = draw(resources())
    sides: list[Any] = [
        _sized(made(version), draw(st.integers(1, 3)), shared if draw(st.booleans()) else draw(resources()))
        for version in ("3", "4")
    ]
    both = draw(st.booleans())
    weight = draw(st.sampled_from([0, 100] if strategy == "swap" else [0, 10, 50, 100])) if both else 0
    return desired(
        strategy=strategy,
        form=draw(st.sampled_from(["deployment"] * 4 + ["inferenceservice"])),
        stable=sides[0],
        candidate=sides[1] if both else None,
        weight=weight,
    )


def _sized(member: Any, replicas: int, resources: Resources) -> Any:
    return replace(member, replicas=replicas, resources=resources)


def _nodes(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.sampled_from([1, 1, 2, 4])] * count)


def cases() -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        nodes=st.sampled_from([0, 1, 2, 2, 3, 3, 4]).flatmap(_nodes),
        quota=st.one_of(st.just({}), quotas()),
        largest_memory=st.sampled_from([None, None, None, "16Gi", "24Gi"]),
        job=st.sampled_from([0, 0, 1, 2]),
        queue=st.integers(0, 2),
        restricted=st.booleans(),
        model=models(),
    )
