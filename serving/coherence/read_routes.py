"""Gateway API: the limits of an HTTPRoute's rule, with the policies that target it or its Gateway.

A policy on a route wins over one on a Gateway. `0s` switches a limit off. Where nothing is written, the implementation's default holds:
Envoy's 15 s behind Envoy Gateway, none behind agentgateway. agentgateway's backendRequest ends when the headers are there, it tries again
only after the codes that are written, and it never does after a timeout of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import UNSET, Hop, Limits, Patch, Setting, least
from serving.coherence.objects import Inventory, Object, items, mapping
from serving.coherence.read_pods import line

UNSEEN_TRIGGERS = {"connect-failure", "refused-stream"}  # a retry for these is no second request at the engine
MODEL_HEADER = "x-gateway-base-model-name"


@dataclass(frozen=True)
class RouteRule:
    """One rule of one route, and the models that it takes (none: any)."""

    route: Object
    index: int
    body: dict[str, Any]
    models: tuple[str, ...]
    gateways: tuple[tuple[str, str], ...]  # namespace, name
    backends: tuple[tuple[str, str, str, float], ...]  # kind, namespace, name, weight

    @property
    def host(self) -> str:
        """What a backend sees as the request's host: the rewritten one, else the route's first; "" where neither is written."""
        where = f"{self.route.file}: {self.route.key}"
        rewrites = [mapping(each.get("urlRewrite"), where) for each in items(self.body.get("filters"), where)]
        names = [*(each.get("hostname") for each in rewrites), *(self.route.spec.get("hostnames") or ())]
        return next((str(name) for name in names if name), "")


def rules(found: Inventory) -> list[RouteRule]:
    return [rule for route in found.kind("HTTPRoute") for rule in _rules(route)]


def _rules(route: Object) -> Iterator[RouteRule]:
    where = f"{route.file}: {route.key}"
    parents = items(route.spec.get("parentRefs"), where)
    gateways = tuple((str(each.get("namespace") or route.namespace), str(each.get("name"))) for each in parents)
    for index, body in enumerate(items(route.spec.get("rules"), where)):
        backends = tuple(_backend(each, route) for each in items(body.get("backendRefs"), where))
        yield RouteRule(route, index, body, _models(body, where), gateways, backends)


def _backend(entry: dict[str, Any], route: Object) -> tuple[str, str, str, float]:
    weight = seconds(entry.get("weight", 1), "number", f"{route.file}: {route.key} weight")
    return (
        str(entry.get("kind") or "Service"),
        str(entry.get("namespace") or route.namespace),
        str(entry.get("name")),
        weight,
    )


def _models(rule: dict[str, Any], where: str) -> tuple[str, ...]:
    headers = (header for match in items(rule.get("matches"), where) for header in items(match.get("headers"), where))
    return tuple(str(each.get("value")) for each in headers if str(each.get("name", "")).lower() == MODEL_HEADER)


def hop(found: Inventory, rule: RouteRule) -> Hop:
    """The gateway as this rule makes it wait."""
    made = _Reader(rule, _implementation(found, rule)).hop()
    for policy in _policies(found, rule):
        made = _with_policy(made, policy, rule)
    return made


def _implementation(found: Inventory, rule: RouteRule) -> str:
    """agentgateway, envoy-gateway, or "" where the Gateways do not say."""
    classes = {
        str(gateway.spec.get("gatewayClassName", ""))
        for namespace, name in rule.gateways
        if (gateway := found.find("Gateway", namespace, name))
    }
    if any("envoy" in each or each == "eg" for each in classes) or found.kind("BackendTrafficPolicy"):
        return "envoy-gateway"
    return "agentgateway" if any("agentgateway" in each for each in classes) else ""


BACKOFF = {"envoy-gateway": "envoy-backoff", "agentgateway": "agentgateway-backoff", "": "route-backoff"}


@dataclass(frozen=True)
class _Reader:
    rule: RouteRule
    implementation: str

    def hop(self) -> Hop:
        body, where = self.rule.body, f"{self.rule.route.file}: {self.rule.route.key} rules[{self.rule.index}]"
        timeouts = mapping(body.get("timeouts"), where)
        total = self.read(timeouts, "timeouts", "request") or self.default()
        attempt = self.read(timeouts, "timeouts", "backendRequest") or UNSET
        retry = mapping(body.get("retry"), where)
        wait = self.read(retry, "retry", "backoff") or implicit(BACKOFF[self.implementation])
        name = f"HTTPRoute {self.rule.route.namespace}/{self.rule.route.name} rule {self.rule.index}"
        if self.implementation == "agentgateway":
            limits = Limits(total=total, first=attempt)
            made = Hop(name, "route", limits, limits, connect=implicit("agentgateway-connect"), retries_timeouts=False)
            return _agentgateway_retries(made, self.count(retry), retry.get("codes"), wait)
        limits = Limits(total=total, attempt=attempt)
        return with_retries(Hop(name, "route", limits, limits), self.count(retry), wait, 10)

    def default(self) -> Setting:
        """Of the total, where the route writes none."""
        route = self.rule.route
        patch = Patch(route.key, ("spec", "rules", self.rule.index, "timeouts", "request"))
        if self.implementation:
            return implicit(f"{self.implementation}-route", patch, route.file)
        return Setting(
            None, "no timeouts.request; the implementation's default is not known", True, route.file, 1, patch
        )

    def read(self, block: dict[str, Any], *keys: str) -> Setting | None:
        """None where it is not written."""
        if block.get(keys[-1]) is None:
            return None
        path: tuple[str | int, ...] = ("spec", "rules", self.rule.index, *keys)
        at = line(self.rule.route.body, path)
        where = (
            f"HTTPRoute {self.rule.route.namespace}/{self.rule.route.name} rules[{self.rule.index}].{'.'.join(keys)}"
        )
        value = seconds(block[keys[-1]], "gateway", f"{self.rule.route.file}:{at}: {where}")
        off = value == 0 and keys[0] == "timeouts"
        return Setting(None if off else value, where, False, self.rule.route.file, at, Patch(self.rule.route.key, path))

    def count(self, retry: dict[str, Any]) -> Setting:
        if not retry:
            return Setting(0, "no retry")
        path: tuple[str | int, ...] = ("spec", "rules", self.rule.index, "retry", "attempts")
        at = line(self.rule.route.body, path)
        where = f"HTTPRoute {self.rule.route.namespace}/{self.rule.route.name} rules[{self.rule.index}].retry.attempts"
        value = seconds(retry.get("attempts", 1), "number", f"{self.rule.route.file}:{at}: {where}")
        patch = Patch(self.rule.route.key, path, "integer")
        return Setting(value, where, "attempts" not in retry, self.rule.route.file, at, patch)


def with_retries(hop: Hop, retries: Setting, wait: Setting, growth: float) -> Hop:
    """`growth`: how many times its first wait a wait may become."""
    first = (wait.value or 0.0) if retries.value else 0.0
    return replace(hop, retries=retries, backoff=(first, first * growth), backoff_where=wait)


def _agentgateway_retries(hop: Hop, retries: Setting, codes: object, wait: Setting) -> Hop:
    if retries.value and not codes:
        retries = replace(implicit("agentgateway-retries", None, retries.file), line=retries.line)
    return with_retries(hop, retries, wait, 1)


def _policies(found: Inventory, rule: RouteRule) -> list[Object]:
    """Those on the Gateway first, so that those on the route win."""
    on_gateway, on_route = [], []
    for policy in found.kind("BackendTrafficPolicy", "ClientTrafficPolicy", "AgentgatewayPolicy"):
        where = f"{policy.file}: {policy.key}"
        targets = [*items(policy.spec.get("targetRefs"), where)]
        targets += [mapping(policy.spec["targetRef"], where)] if policy.spec.get("targetRef") else []
        for target in targets:
            name, kind = target.get("name"), target.get("kind")
            if kind == "HTTPRoute" and (policy.namespace, name) == (rule.route.namespace, rule.route.name):
                on_route.append(policy)
            elif kind == "Gateway" and (policy.namespace, name) in rule.gateways:
                on_gateway.append(policy)
    return on_gateway + on_route


def _with_policy(hop: Hop, policy: Object, rule: RouteRule) -> Hop:
    if policy.kind == "AgentgatewayPolicy":
        return _agentgateway(hop, policy)
    if policy.kind == "ClientTrafficPolicy":
        return _client_policy(hop, policy)
    return _backend_policy(hop, policy, rule)


def _agentgateway(hop: Hop, policy: Object) -> Hop:
    reader = _Policy(policy)
    total = reader.go("traffic", "timeouts", "request")
    attempt = reader.go("backend", "http", "requestTimeout")
    connect = reader.go("backend", "tcp", "connectTimeout")
    limits = hop.whole
    if total and hop.whole.total.implicit:  # an HTTPRoute's own timeouts win
        limits = replace(limits, total=total)
    if attempt:  # it takes the place of the route's backendRequest, and ends at the headers as that does
        limits = replace(limits, first=attempt)
    changed = replace(hop, whole=limits, streaming=limits, connect=connect or hop.connect, retries_timeouts=False)
    attempts = reader.count("traffic", "retry", "attempts")
    if not attempts or hop.retries.value:
        return changed
    wait = reader.go("traffic", "retry", "backoff") or implicit("agentgateway-backoff")
    return _agentgateway_retries(changed, attempts, reader.find("traffic", "retry", "codes"), wait)


def _client_policy(hop: Hop, policy: Object) -> Hop:
    reader = _Policy(policy)
    idle = reader.go("timeout", "http", "streamIdleTimeout")
    longest = reader.go("connection", "connectionLimit", "maxStreamDuration")
    limits = replace(hop.whole, idle=idle) if idle else hop.whole
    if longest and longest.value:
        limits = replace(limits, total=least(limits.total, longest))
    return replace(hop, whole=limits, streaming=limits)


def _backend_policy(hop: Hop, policy: Object, rule: RouteRule) -> Hop:
    reader = _Policy(policy)
    total = reader.go("timeout", "http", "requestTimeout")
    idle = reader.go("timeout", "http", "streamIdleTimeout")
    longest = reader.go("timeout", "http", "maxStreamDuration")
    attempt = reader.go("retry", "perRetry", "timeout")
    limits = hop.whole
    if total and limits.total.implicit:
        limits = replace(limits, total=total)
    limits = replace(
        limits, idle=idle or limits.idle, attempt=least(limits.attempt, attempt) if attempt else limits.attempt
    )
    streaming = replace(limits, total=least(limits.total, longest)) if longest and longest.value else limits
    cause = mapping(mapping(policy.spec.get("retry"), policy.file).get("retryOn"), policy.file)
    unseen = bool(cause) and set(cause.get("triggers") or ()) <= UNSEEN_TRIGGERS and not cause.get("httpStatusCodes")
    if "retry" in policy.spec and not hop.retries.value and not unseen:
        retries = reader.count("retry", "numRetries") or Setting(2, f"{policy.key} retry.numRetries", True, policy.file)
        base = reader.go("retry", "perRetry", "backOff", "baseInterval") or implicit("envoy-backoff")
        hop = with_retries(hop, retries, base, 10)
    queue = reader.count("circuitBreaker", "maxParallelRequests")
    connect, pool = reader.go("timeout", "tcp", "connectTimeout"), reader.go("timeout", "http", "connectionIdleTimeout")
    return replace(
        hop, whole=limits, streaming=streaming, queue=queue or hop.queue, connect=connect or hop.connect, pool_idle=pool or hop.pool_idle,
    )  # fmt: skip


@dataclass(frozen=True)
class _Policy:
    policy: Object

    def go(self, *path: str) -> Setting | None:
        found = self.find(*path)
        if found is None:
            return None
        value = seconds(found, "go", f"{self.policy.file}: {self.policy.key} {'.'.join(path)}")
        return self._setting(path, value or None, "gateway")

    def count(self, *path: str) -> Setting | None:
        found = self.find(*path)
        where = f"{self.policy.file}: {self.policy.key} {'.'.join(path)}"
        return None if found is None else self._setting(path, seconds(found, "number", where), "integer")

    def find(self, *path: str) -> Any:
        block: Any = self.policy.spec
        for key in path:
            block = mapping(block, f"{self.policy.file}: {self.policy.key}").get(key)
        return block

    def _setting(self, path: tuple[str, ...], value: float | None, style: str) -> Setting:
        at = line(self.policy.body, ("spec", *path))
        where = f"{self.policy.kind} {self.policy.namespace}/{self.policy.name} {'.'.join(path)}"
        return Setting(value, where, False, self.policy.file, at, Patch(self.policy.key, ("spec", *path), style))
