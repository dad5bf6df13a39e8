"""Envoy's own configuration: the routes to each model, from a bootstrap or from xDS files (LDS, RDS, CDS)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import UNSET, Hop, Limits, Setting, least
from serving.coherence.objects import Inventory, items, mapping
from serving.coherence.read_routes import MODEL_HEADER

Json = dict[str, Any]
UNSEEN = {
    "connect-failure",
    "refused-stream",
    "reset-before-request",
}  # a retry for these is no second request at the engine


@dataclass(frozen=True)
class EnvoyRoute:
    """A route to a model's cluster."""

    model: str
    hop: Hop
    address: str  # host:port of the cluster's first endpoint


def envoy_routes(found: Inventory) -> list[EnvoyRoute]:
    managers, tables, clusters = _resources(found)
    made: dict[tuple[str, str], EnvoyRoute] = {}
    for file, table in tables:
        manager = managers[0][1] if managers else {}
        for host in items(table.get("virtual_hosts"), file):
            for entry in items(host.get("routes"), file):
                for cluster in _clusters(mapping(entry.get("route"), file), file):
                    model = _model(entry, file) or cluster
                    made.setdefault((model, cluster), _route(file, manager, entry, model, clusters.get(cluster, {})))
    return list(made.values())


def _resources(found: Inventory) -> tuple[list[tuple[str, Json]], list[tuple[str, Json]], dict[str, Json]]:
    managers, tables, clusters = [], [], {}
    for file, document in found.envoy:
        static = mapping(document.get("static_resources"), file)
        given = items(document.get("resources"), file)
        for listener in [*items(static.get("listeners"), file), *(each for each in given if _is(each, "Listener"))]:
            for manager in _managers(listener, file):
                managers.append((file, manager))
                if "route_config" in manager:
                    tables.append((file, mapping(manager["route_config"], file)))
        tables += [(file, each) for each in given if _is(each, "RouteConfiguration")]
        for cluster in [*items(static.get("clusters"), file), *(each for each in given if _is(each, "Cluster"))]:
            clusters[str(cluster.get("name"))] = {**cluster, "__file__": file}
    return managers, tables, clusters


def _is(resource: Json, kind: str) -> bool:
    return str(resource.get("@type", "")).rpartition(".")[2] == kind


def _managers(listener: Json, file: str) -> Iterator[Json]:
    for chain in items(listener.get("filter_chains"), file):
        for each in items(chain.get("filters"), file):
            config = mapping(each.get("typed_config"), file)
            if _is(config, "HttpConnectionManager"):
                yield config


def _clusters(action: Json, file: str) -> list[str]:
    if action.get("cluster"):
        return [str(action["cluster"])]
    weighted = items(mapping(action.get("weighted_clusters"), file).get("clusters"), file)
    return [str(each.get("name")) for each in weighted if each.get("weight", 1)]


def _model(entry: Json, file: str) -> str:
    for header in items(mapping(entry.get("match"), file).get("headers"), file):
        if str(header.get("name", "")).lower() == MODEL_HEADER:
            return str(header.get("exact_match") or mapping(header.get("string_match"), file).get("exact", ""))
    return ""


def _route(file: str, manager: Json, entry: Json, model: str, cluster: Json) -> EnvoyRoute:
    action, name = mapping(entry.get("route"), file), str(cluster.get("name", "?"))
    read = _Reader(file, f"Envoy route of {model}")
    total = read.proto(action, "timeout") or implicit("envoy-route")
    own = mapping(action.get("max_stream_duration"), file)
    common = mapping(manager.get("common_http_protocol_options"), file)
    longest = read.proto(own, "max_stream_duration") or read.proto(common, "max_stream_duration")
    idle = read.proto(action, "idle_timeout") or read.proto(manager, "stream_idle_timeout")
    policy = mapping(action.get("retry_policy"), file)
    attempt = read.proto(policy, "per_try_timeout") or UNSET
    per_try_idle = read.proto(policy, "per_try_idle_timeout")
    limits = Limits(
        total=least(total, longest) if longest else total,
        attempt=attempt,
        idle=least(idle or implicit("envoy-stream-idle"), per_try_idle)
        if per_try_idle
        else idle or implicit("envoy-stream-idle"),
    )
    retries = _retries(policy, read)
    back = mapping(policy.get("retry_back_off"), file)
    base = read.proto(back, "base_interval") or implicit("envoy-backoff")
    wait = (base.value or 0.0) if retries.value else 0.0
    ceiling = read.proto(back, "max_interval")
    hedge = mapping(action.get("hedge_policy"), file)
    hop = Hop(
        f"Envoy route of {model} to {name}", "route", limits, limits, retries,
        (wait, ceiling.value if ceiling and ceiling.value else wait * 10), base,
        connect=read.proto(cluster, "connect_timeout") or implicit("envoy-connect"),
        hedges=bool(hedge.get("hedge_on_per_try_timeout")),
        queue=_breaker(cluster, file), pool_idle=_pool_idle(cluster, file),
    )  # fmt: skip
    return EnvoyRoute(model, hop, _address(cluster, file))


def _retries(policy: Json, read: _Reader) -> Setting:
    causes = {each.strip() for each in str(policy.get("retry_on") or "").split(",")} - {""}
    if causes <= UNSEEN:
        return Setting(
            0,
            "no retry_policy"
            if not causes
            else f"retries only what the engine has not seen: {', '.join(sorted(causes))}",
        )
    count = policy.get("num_retries", 1)
    where = f"{read.name} retry_policy.num_retries"
    return Setting(seconds(count, "number", f"{read.file}: {where}"), where, "num_retries" not in policy, read.file)


def _breaker(cluster: Json, file: str) -> Setting:
    for each in items(mapping(cluster.get("circuit_breakers"), file).get("thresholds"), file):
        if each.get("max_requests") is not None and each.get("priority", "DEFAULT") == "DEFAULT":
            where = f"cluster {cluster.get('name')} circuit_breakers.max_requests"
            return Setting(seconds(each["max_requests"], "number", f"{file}: {where}"), where, False, file)
    return UNSET


def _pool_idle(cluster: Json, file: str) -> Setting:
    options = mapping(cluster.get("typed_extension_protocol_options"), file)
    blocks = [mapping(each, file) for each in options.values()]
    for block in [*blocks, cluster]:
        common = mapping(block.get("common_http_protocol_options"), file)
        found = _Reader(file, f"cluster {cluster.get('name')}").proto(common, "idle_timeout")
        if found:
            return found
    return implicit("envoy-pool-idle")


def _address(cluster: Json, file: str) -> str:
    for group in items(mapping(cluster.get("load_assignment"), file).get("endpoints"), file):
        for each in items(group.get("lb_endpoints"), file):
            socket = mapping(
                mapping(mapping(each.get("endpoint"), file).get("address"), file).get("socket_address"), file
            )
            return f"{socket.get('address')}:{socket.get('port_value')}"
    return ""


@dataclass(frozen=True)
class _Reader:
    file: str
    name: str

    def proto(self, block: Json, key: str) -> Setting | None:
        """None where it is not written; 0 is no limit."""
        if block.get(key) is None:
            return None
        where = f"{self.name} {key}"
        value = seconds(block[key], "proto", f"{self.file}: {where}")
        at = getattr(block, "lines", {}).get(key, 1)
        return Setting(value or None, where, False, self.file, at)
