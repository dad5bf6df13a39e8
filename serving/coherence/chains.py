"""Every chain that the files describe: alias → api_base → Gateway's route or Service → pool → pods. Pure, apart from reading the inventory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.given import chain_file, given_hops, with_figures
from serving.coherence.model import Chain, Engine, Hop, Limits, Patch, Setting
from serving.coherence.objects import Inventory, Object, mapping
from serving.coherence.read_clients import Client, clients
from serving.coherence.read_envoy import envoy_routes
from serving.coherence.read_litellm import LiteLlm, litellm
from serving.coherence.read_pods import Workload, engine, is_model, line, served_names, workloads
from serving.coherence.read_routes import RouteRule, hop, rules
from serving.coherence.read_scalers import INTERCEPTOR, interceptor_for, scaling

Path = tuple[tuple[Hop, ...], Engine, tuple[str, ...]]  # behind the router: hops, engine, notes


def chains(found: Inventory) -> list[Chain]:
    """In the order of the configuration. Raises InputInvalid, DurationInvalid."""
    chain, file = chain_file(found)
    who = clients(found, chain, file)
    resolver = _Resolver(found, chain, file, workloads(found), rules(found))
    proxy = litellm(found)
    made: list[Chain] = []
    for alias, edge, path, direct in _paths(resolver, proxy, given_hops(chain, file)):
        for client in who:
            if (client.aliases and alias not in client.aliases) or (direct and not client.edge):
                continue
            for outside in edge if client.edge and edge else ((),):
                made.append(_chain(resolver, alias, client, (*outside, *path[0]), path))
    return made


def _chain(resolver: _Resolver, alias: str, client: Client, hops: tuple[Hop, ...], path: Path) -> Chain:
    found = with_figures(path[1], resolver.chain, alias, resolver.file)
    if found.scaling:
        found = replace(found, scaling=replace(found.scaling, held=any(each.kind == "interceptor" for each in hops)))
    return Chain(alias, client.hop.name, (client.hop, *hops), found, path[2], client.modes)


Edges = tuple[tuple[Hop, ...], ...]
Way = tuple[
    str, Edges, Path, bool
]  # alias, routes from outside, what is behind, whether only clients from outside use it


def _paths(resolver: _Resolver, proxy: LiteLlm | None, given: dict[str, tuple[Hop, ...]]) -> Iterator[Way]:
    for alias, hops in given.items():
        yield alias, (), (hops, Engine(alias), ()), False
    if proxy:
        edges = resolver.edges()
        for each in proxy.deployments:
            for hops, found, notes in resolver.behind(each.api_base, each.served):
                yield each.alias, edges, ((each.hop, *hops), found, notes), False
    for route in envoy_routes(resolver.found):
        address = Engine(route.address or route.model, keep_alive=implicit("vllm-keep-alive"))
        yield route.model, (), ((route.hop,), address, ()), False
    if not proxy:
        yield from resolver.without_router()
    yield from resolver.kserve_alone(proxy is not None)


@dataclass
class _Resolver:
    found: Inventory
    chain: dict[str, Any]
    file: str
    pods: list[Workload]
    rules: list[RouteRule]
    reached: set[str] = field(default_factory=set)

    def edges(self) -> Edges:
        """Routes from outside to the router, one of each set of limits."""
        kept: dict[tuple[float | None, ...], Hop] = {}
        for rule in self.rules:
            if any("litellm" in name for kind, _, name, _ in rule.backends if kind == "Service"):
                one = hop(self.found, rule)
                kept.setdefault((one.whole.total.value, one.whole.attempt.value, one.retries.value), one)
        return tuple((one,) for one in kept.values())

    def behind(self, api_base: str, served: str) -> Iterator[Path]:
        """What stands behind an api_base."""
        host = urlsplit(api_base).hostname or api_base
        name, _, rest = host.partition(".")
        namespace = rest.partition(".")[0] or "default"
        if name == INTERCEPTOR:
            yield from self._interceptor("", (), served)
            return
        at = (namespace, name)
        if any(at in rule.gateways for rule in self.rules) or self.found.find("Gateway", *at):
            yield from self._gateway(at, served)
            return
        yield from self._service(namespace, name, (), served)

    def _gateway(self, at: tuple[str, str], served: str) -> Iterator[Path]:
        mine = [rule for rule in self.rules if at in rule.gateways]
        named = [rule for rule in mine if served in rule.models] or [rule for rule in mine if not rule.models]
        if named:
            yield from self._rule(named[0], served)
            return
        for pod in self.pods:
            if pod.object.kind == "InferenceService" and served in served_names(pod):
                self.reached.add(pod.object.key)
                yield (kserve_hop(pod.object),), self._engine(pod), ()
                return
        yield (
            (),
            Engine(f"{at[0]}/{at[1]}"),
            (f"no route of Gateway {at[0]}/{at[1]} takes model {served!r}: the gateway answers 404",),
        )

    def _rule(self, rule: RouteRule, served: str) -> Iterator[Path]:
        before = (hop(self.found, rule),)
        backends = [each for each in rule.backends if each[3]]
        for kind, namespace, name, _ in backends:
            if kind == "InferencePool":
                yield from self._pool(namespace, name, before)
            elif name == INTERCEPTOR:
                yield from self._interceptor(rule.host, before, served)
            else:
                yield from self._service(namespace, name, before, served)
        if not backends:
            yield (
                before,
                Engine(f"backend of {rule.route.namespace}/{rule.route.name}"),
                ("the rule has no backend with weight",),
            )

    def _pool(self, namespace: str, name: str, before: tuple[Hop, ...]) -> Iterator[Path]:
        pool = self.found.find("InferencePool", namespace, name)
        if pool is None:
            pod = self._named(namespace, name)
            note = f"InferencePool {namespace}/{name} is not in these files" + (
                "; the workload of that name is taken" if pod else ""
            )
            yield before, self._engine(pod) if pod else Engine(f"{namespace}/{name}"), (note,)
            return
        selector = mapping(pool.spec.get("selector"), pool.file)
        labels = mapping(selector.get("matchLabels", selector), pool.file)
        picker = mapping(pool.spec.get("endpointPickerRef", pool.spec.get("extensionRef")), pool.file)
        mode = picker.get("failureMode") or f"FailClose (implicit: {implicit('picker-failure').where})"
        pods = self._selected(namespace, labels)
        notes = (f"InferencePool {namespace}/{name}: its endpoint picker's failure mode is {mode}",)
        if not pods:
            yield before, Engine(f"{namespace}/{name}"), (*notes, "no workload in these files has its labels")
        for pod in pods:
            yield before, self._engine(pod), notes

    def _service(self, namespace: str, name: str, before: tuple[Hop, ...], served: str) -> Iterator[Path]:
        service = self.found.find("Service", namespace, name)
        labels = mapping(service.spec.get("selector"), service.file) if service else {}
        pods = self._selected(namespace, labels) if labels else []
        pods = (
            pods
            or [
                pod
                for pod in (self._named(namespace, name), self._named(namespace, name.removesuffix("-predictor")))
                if pod
            ][:1]
        )
        if not pods:
            yield (
                before,
                Engine(f"{namespace}/{name}"),
                (f"{namespace}/{name} is not in these files: what is behind it is not checked",),
            )
        for pod in pods[:1]:
            yield before, self._engine(pod), ()

    def _interceptor(self, host: str, before: tuple[Hop, ...], served: str) -> Iterator[Path]:
        made = interceptor_for(self.found, host)
        if made is None:
            note = f"no HTTPScaledObject or InterceptorRoute in these files takes host {host or 'unknown'!r}"
            yield before, Engine("interceptor"), (f"{note}: what is behind it is not checked",)
            return
        yield from self._service(made[1], made[2], (*before, made[0]), served)

    def without_router(self) -> Iterator[Way]:
        """Routes straight to engines: the alias is the model that the route takes, or the engine's own name for it."""
        for rule in self.rules:
            for path in self._rule(rule, ""):
                names = rule.models
                if not names:
                    pod = next(
                        (each for each in self.pods if each.name == path[1].name and is_model(each.container)), None
                    )
                    names = served_names(pod)[:1] if pod else ()
                for name in names:
                    yield name, (), path, False

    def kserve_alone(self, proxy: bool) -> Iterator[Way]:
        """InferenceServices that no alias leads to: KServe makes a route for each."""
        for pod in self.pods:
            if pod.object.kind == "InferenceService" and pod.object.key not in self.reached and is_model(pod.container):
                names = served_names(pod) or (pod.object.name,)
                yield f"{names[0]} ({pod.name})", (), ((kserve_hop(pod.object),), self._engine(pod), ()), proxy

    def _engine(self, pod: Workload) -> Engine:
        self.reached.add(pod.object.key)
        one = pod.object
        return replace(engine(pod), scaling=scaling(self.found, one.kind, one.namespace, one.name))

    def _named(self, namespace: str, name: str) -> Workload | None:
        return next((pod for pod in self.pods if (pod.object.namespace, pod.object.name) == (namespace, name)), None)

    def _selected(self, namespace: str, labels: dict[str, Any]) -> list[Workload]:
        return [
            pod
            for pod in self.pods
            if pod.object.namespace == namespace and labels and labels.items() <= pod.labels.items()
        ]


def kserve_hop(one: Object) -> Hop:
    """The HTTPRoute that KServe makes for an InferenceService."""
    value = mapping(one.spec.get("predictor"), one.file).get("timeout")
    path = ("spec", "predictor", "timeout")
    patch = Patch(one.key, path, "integer")
    if value is None:
        total = replace(implicit("kserve-route", patch), file=one.file, line=line(one.body, ("spec", "predictor")))
    else:
        where = f"InferenceService {one.namespace}/{one.name} predictor.timeout"
        total = Setting(
            seconds(value, "number", f"{one.file}: {where}"), where, False, one.file, line(one.body, path), patch
        )
    limits = Limits(total=total)
    return Hop(f"KServe's route of {one.namespace}/{one.name}", "route", limits, limits)
