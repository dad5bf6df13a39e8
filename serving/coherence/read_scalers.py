"""KEDA: who scales a workload, and the HTTP add-on's interceptor as a hop on the way to it."""

from __future__ import annotations

from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import Hop, Limits, Patch, Scaling, Setting
from serving.coherence.objects import Inventory, Object, items, mapping

INTERCEPTOR = "keda-add-ons-http-interceptor-proxy"
HTTP = ("HTTPScaledObject", "InterceptorRoute")


def scaling(found: Inventory, kind: str, namespace: str, name: str) -> Scaling | None:
    """None where nothing scales it."""
    owners = [
        one
        for one in found.kind("ScaledObject", "HTTPScaledObject")
        if one.namespace == namespace and _target(one) == (kind, name)
    ]
    if not owners:
        return None
    one = owners[0]
    low = (
        one.spec.get("minReplicaCount", 0)
        if one.kind == "ScaledObject"
        else mapping(one.spec.get("replicas"), one.file).get("min", 0)
    )
    key = "cooldownPeriod" if one.kind == "ScaledObject" else "scaledownPeriod"
    patch = Patch(one.key, ("spec", key), "integer")
    cooldown = implicit("keda-cooldown", patch)
    if one.spec.get(key) is not None:
        cooldown = Setting(
            seconds(one.spec[key], "number", f"{one.file}: {one.key} {key}"),
            f"{one.key} {key}",
            False,
            one.file,
            1,
            patch,
        )
    names = tuple(f"{each.kind} {each.namespace}/{each.name}" for each in owners if not _external(each))
    return Scaling(int(low) if isinstance(low, int) else 0, cooldown, names)


def _external(one: Object) -> bool:
    """A ScaledObject with the add-on's external-push trigger is the add-on's own."""
    triggers = items(one.spec.get("triggers"), one.file)
    return any(each.get("type") == "external-push" for each in triggers)


def _target(one: Object) -> tuple[str, str]:
    target = mapping(one.spec.get("scaleTargetRef"), one.file)
    return str(target.get("kind") or "Deployment"), str(target.get("name"))


def interceptor_for(found: Inventory, host: str) -> tuple[Hop, str, str] | None:
    """By the host that a request asks for ("": not known): the hop, and the namespace and Service behind it.

    A single interceptor is taken whatever the host is, because proxies in front may write another one.
    """
    every = list(found.kind(*HTTP))
    taken = [one for one in every if any(_matches(host, each) for each in _hosts(one))]
    if not taken and len(every) != 1:
        return None
    one = (taken or every)[0]
    target = mapping(one.spec.get("scaleTargetRef") or one.spec.get("target"), one.file)
    return interceptor(one), one.namespace, str(target.get("service") or target.get("name"))


def _matches(host: str, pattern: str) -> bool:
    """`*.example.com` is any name below it, as in an InterceptorRoute."""
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _hosts(one: Object) -> set[str]:
    hosts = set(map(str, one.spec.get("hosts") or ()))
    for rule in items(one.spec.get("rules"), one.file):
        hosts |= set(map(str, rule.get("hosts") or ()))
    return hosts


def interceptor(one: Object) -> Hop:
    timeouts = mapping(one.spec.get("timeouts"), one.file)
    old = one.kind == "HTTPScaledObject"
    header = _limit(one, timeouts, "responseHeader", "keda-http-header")
    ready = _limit(one, timeouts, "conditionWait" if old else "readiness", "keda-http-readiness")
    other = _fallback(one)
    if other and ready.value is None:
        ready = implicit("keda-http-fallback", ready.patch, one.file)
    limits = Limits(total=_limit(one, timeouts, "request", "keda-http-request"), first=header)
    name = f"interceptor of {one.kind} {one.namespace}/{one.name}"
    connect = implicit("keda-http-connect")
    return Hop(name, "interceptor", limits, limits, readiness=ready, falls_back=other, connect=connect)


def _fallback(one: Object) -> bool:
    """Whether another Service answers where no replica comes in time."""
    cold = mapping(one.spec.get("coldStart"), one.file)
    return bool(mapping(cold.get("fallback"), one.file).get("service"))


def _limit(one: Object, timeouts: dict[str, Any], key: str, row: str) -> Setting:
    patch = Patch(one.key, ("spec", "timeouts", key))
    if timeouts.get(key) is None:
        return implicit(row, patch, one.file)
    value = seconds(timeouts[key], "go", f"{one.file}: {one.key} timeouts.{key}")
    return Setting(value or None, f"{one.key} timeouts.{key}", False, one.file, 1, patch)
