"""A model as it shall be → the files of a kustomization, byte for byte the same for the same input. START HERE. Pure.

    render(desired)  ->  {"kustomization.yaml": …, "route.yaml": …, "ticket-router-v4/workload.yaml": …}

Weights are in route.yaml, or in rewrite.yaml with strategy adapter, so a step of a canary changes one file.
"""

from __future__ import annotations

from typing import Any

from serving.manifests.litellm import overlay
from serving.manifests.model import Desired, Member
from serving.manifests.pool import pool
from serving.manifests.route import gap, rewrites, route
from serving.manifests.surroundings import disruption, monitoring, network, warmup
from serving.manifests.text import to_yaml
from serving.manifests.workload import workload

KUSTOMIZATION = "kustomization.yaml"
LITELLM = "litellm-values.yaml"  # Helm values: no resource of the kustomization
Documents = tuple[dict[str, Any], ...]


def render(desired: Desired) -> dict[str, str]:
    """Relative path → text. Raises NotStampable."""
    files = objects(desired)
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
    texts = {KUSTOMIZATION: to_yaml(listed)} | {path: to_yaml(*documents) for path, documents in files.items()}
    if desired.alias:
        texts[LITELLM] = to_yaml(overlay(desired, desired.alias))
    return texts


def objects(desired: Desired) -> dict[str, Documents]:
    """Relative path → the objects in it, in the order in which they can be applied. Raises NotStampable."""
    engines = engine_members(desired)
    names = tuple(desired.name_of(member) for member in engines)
    files: dict[str, Documents] = {
        "warmup.yaml": (warmup(desired),),
        "network.yaml": network(desired, names),
    }
    for member in engines:
        folder = desired.name_of(member)
        files[f"{folder}/workload.yaml"] = (workload(desired, member), *disruption(desired, member))
        files[f"{folder}/pool.yaml"] = pool(desired, member)
        files[f"{folder}/monitoring.yaml"] = monitoring(desired, member)
    files["rewrite.yaml"] = rewrites(desired)
    files["route.yaml"] = (route(desired),)
    return files


def engine_members(desired: Desired) -> tuple[Member, ...]:
    """Members with an engine of their own; with strategy adapter one stands for both, the newest."""
    return desired.members[-1:] if desired.strategy == "adapter" else desired.members


def notes(desired: Desired) -> tuple[str, ...]:
    """What a person should know before this is applied."""
    said = gap(desired)
    return (said,) if said else ()
