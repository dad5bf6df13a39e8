"""The model's one HTTPRoute, by the name in the request's body, and what rewrites that name in a pool. Pure.

The gateway puts the body's model into X-Gateway-Base-Model-Name before it chooses a route; a name without a rule is answered 404.
"""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Desired
from serving.manifests.modelcars import loaded
from serving.manifests.naming import GAP, evidence, metadata

HEADER = "X-Gateway-Base-Model-Name"
POOL = {"group": "inference.networking.k8s.io", "kind": "InferencePool"}


def route(desired: Desired) -> dict[str, Any]:
    """The first rule takes what clients ask for and carries the weights; the others take each version's own name.

    KServe names a route of its own like the InferenceService, so this one has a suffix.
    """
    rules = [_rule(desired, desired.model, _weighted(desired))]
    rules += [_rule(desired, name, [{**POOL, "name": pool, "weight": 1}]) for name, pool in own_names(desired)]
    annotations = evidence(*desired.members)
    if gap(desired):
        annotations[GAP] = gap(desired)
    platform = desired.platform
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(desired, f"{desired.model}-route", "route", of=desired.model, annotations=annotations),
        "spec": {
            "parentRefs": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": platform.gateway,
                    "namespace": platform.gateway_namespace,
                }
            ],
            "rules": rules,
        },
    }


def own_names(desired: Desired) -> tuple[tuple[str, str], ...]:
    """(name, pool) by which a version is asked for directly, whatever its weight; each adapter that an engine holds has one."""
    if desired.strategy == "adapter":
        return tuple((name, desired.model) for name, _ in loaded(desired, desired.members[-1]).adapters)
    return tuple((desired.name_of(member), desired.name_of(member)) for member in desired.members)


def _rule(desired: Desired, model: str, backends: list[dict[str, Any]]) -> dict[str, Any]:
    header = {"type": "Exact", "name": HEADER, "value": model}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}],
        "backendRefs": backends,
        "timeouts": {"request": f"{desired.request_seconds}s"},
    }


def _weighted(desired: Desired) -> list[dict[str, Any]]:
    if desired.strategy == "adapter":
        return [{**POOL, "name": desired.model, "weight": 1}]
    return [{**POOL, "name": desired.name_of(member), "weight": desired.share_of(member)} for member in desired.members]


def rewrites(desired: Desired) -> tuple[dict[str, Any], ...]:
    """adapter: the split itself. pool and swap: a version's own name becomes the model's, by which its engine serves it."""
    if desired.strategy == "adapter":
        targets = [
            {"modelRewrite": member.adapter.name, "weight": share}
            for member in desired.members
            if member.adapter and (share := desired.share_of(member))
        ]
        return (_rewrite(desired, desired.model, desired.model, targets),)
    return tuple(
        _rewrite(desired, pool, name, [{"modelRewrite": desired.model, "weight": 1}])
        for name, pool in own_names(desired)
    )


def _rewrite(desired: Desired, pool: str, model: str, targets: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": metadata(desired, pool, "rewrite"),
        "spec": {
            "poolRef": {**POOL, "name": pool},
            "rules": [{"matches": [{"model": {"type": "Exact", "value": model}}], "targets": targets}],
        },
    }


def gap(desired: Desired) -> str:
    """When the model answers nothing, for people; empty when it always does."""
    if desired.candidate is None or desired.surge or desired.strategy == "pool":
        return ""
    seconds = desired.candidate.startup_seconds
    if desired.strategy == "swap":
        return (
            f"one engine runs at a time: from weight 0 to 100, and back, the model answers 503 until the other engine "
            f"is warm, at most {seconds} s"
        )
    return (
        f"one engine holds both adapters, and it restarts once to load the candidate's modelcar: the model answers 503 "
        f"until it is warm, at most {seconds} s; after that weights move without a gap"
    )
