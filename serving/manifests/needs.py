"""The pods that a model's manifests become, and what each asks for. Pure: it reads the rendered objects, not the values behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from serving.fit.quantity import parse_quantity
from serving.manifests.model import Desired
from serving.manifests.pool import picker_name, pool
from serving.manifests.render import engine_members
from serving.manifests.room import PODS, Amounts
from serving.manifests.workload import runs, workload

# KServe's sidecar that holds the modelcar (cpuModelcar and memoryModelcar of its configuration, 0.19).
MODELCAR: Mapping[str, Any] = {"cpu": "10m", "memory": "15Mi"}


@dataclass(frozen=True)
class Need:
    """Pods of one kind. `containers` are the limits of each container, for a LimitRange."""

    name: str
    count: int
    requests: Amounts
    limits: Amounts
    containers: tuple[Amounts, ...]
    node_labels: Mapping[str, str]
    tolerated: frozenset[str]  # keys of taints, whatever their value


def needs(desired: Desired) -> tuple[Need, ...]:
    """Engines first, then the pools' pickers."""
    members = engine_members(desired)
    engines = tuple(
        _engine(desired, workload(desired, member), member.replicas) for member in members if runs(desired, member)
    )
    pickers = tuple(
        _need(picker_name(desired.name_of(member)), 1, each["spec"]["template"]["spec"])
        for member in members
        for each in pool(desired, member)
        if each["kind"] == "Deployment"
    )
    return (*engines, *pickers)


def _engine(desired: Desired, document: Mapping[str, Any], replicas: int) -> Need:
    spec = document["spec"]
    template = spec["predictor"] if desired.form == "inferenceservice" else spec["template"]
    template = template["spec"] if desired.form == "deployment" else template
    extra = ({"requests": MODELCAR, "limits": MODELCAR},) if desired.form == "inferenceservice" else ()
    return _need(document["metadata"]["name"], replicas, template, extra)


def _need(name: str, count: int, spec: Mapping[str, Any], extra: tuple[Mapping[str, Any], ...] = ()) -> Need:
    asked = (*(each["resources"] for each in spec["containers"]), *extra)
    return Need(
        name=name,
        count=count,
        requests={**_sum(each["requests"] for each in asked), PODS: Decimal(1)},
        limits=_sum(each["limits"] for each in asked),
        containers=tuple(_sum([each["limits"]]) for each in asked),
        node_labels=spec.get("nodeSelector", {}),
        tolerated=frozenset(str(each["key"]) for each in spec.get("tolerations", ())),
    )


def _sum(listed: Any) -> dict[str, Decimal]:
    total: Counter[str] = Counter()
    for each in listed:
        for name, size in each.items():
            total[name] += parse_quantity(size)  # type: ignore[assignment]
    return dict(total)  # type: ignore[arg-type]
