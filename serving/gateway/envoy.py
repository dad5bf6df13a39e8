"""Envoy's configuration as plain data: bootstrap and clusters; listener and routes stand beside it. Pure.

A request's model name is read from its body into a header, the route for that name splits by weight over two clusters, and the
chosen entry rewrites the name in the body to the engine's name of that version. Documentation: envoyproxy.io, "Lua",
"Weighted clusters", "Composite cluster", "xDS from files".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from serving.gateway.lua import fallback as fallback_program
from serving.gateway.lua import mirror as mirror_program
from serving.gateway.model import DEFAULT_LIMITS, VERSION_HEADER, Endpoint, Json, Limits, Split
from serving.gateway.parts import TYPES, address, lua, response, watched

__all__ = ["VERSION_HEADER", "Split", "bootstrap", "chain_of", "cluster_of", "clusters"]

ENGINE_IDLE_SECONDS = 4  # below vLLM's keep-alive of 5 s: a request never meets the engine closing its connection
OTLP_CLUSTER = "otlp"


def bootstrap(folder: Path, admin_port: int) -> Json:
    """Static part: the admin interface on loopback, everything else from watched files in `folder`."""
    return {
        "node": {"id": "liftlock", "cluster": "liftlock"},
        "admin": {"address": address("127.0.0.1", admin_port)},
        "dynamic_resources": {"lds_config": watched(folder, "lds.json"), "cds_config": watched(folder, "cds.json")},
    }


def clusters(
    engine_url: str,
    splits: Sequence[Split],
    *,
    limits: Limits = DEFAULT_LIMITS,
    fallback: Sequence[Endpoint] = (),
    endpoints: Sequence[Endpoint] = (),
    otlp_url: str | None = None,
) -> Json:
    """One for the base model and two a public model; a model may have several splits, the one of before and the one of now.

    With a fallback each of them is the first of a chain; its other members are shared, because they serve one name each.
    """
    sides = {
        cluster_of(split.model, side, engine): engine or engine_url
        for split in splits
        for side, engine in (("stable", split.stable_engine), ("candidate", split.candidate_engine))
    }
    named = {"engine": engine_url, **sides}
    found = [_cluster(name, engine, limits) for name, engine in named.items()]
    found += [_shadow(split, engine_url, limits) for split in splits if split.mirror]
    found += [_cluster(f"at-{one.model}", one.url, limits) for one in endpoints]
    found += [_cluster(f"fallback-{number}", one.url, limits) for number, one in enumerate(fallback)]
    if fallback:
        found += [_chain(name, fallback) for name in named]
    if otlp_url:
        found.append(_cluster(OTLP_CLUSTER, otlp_url, limits))
    return response(found)


def cluster_of(model: str, side: str, engine: str | None) -> str:
    """Each side of a split has counters of its own. A new engine is a new cluster: requests of the old one end where they began."""
    return f"{model}-{side}" + (f"-{hashlib.sha256(engine.encode()).hexdigest()[:8]}" if engine else "")


def _shadow(split: Split, engine_url: str, limits: Limits) -> Json:
    """For the copies of requests: they ask as the candidate, and have counters of their own."""
    name = cluster_of(split.model, "mirror", split.candidate_engine)
    program = lua("name-mirror", mirror_program(split.candidate or ""))
    options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http([program])}
    return {**_cluster(name, split.candidate_engine or engine_url, limits), "typed_extension_protocol_options": options}


def chain_of(cluster: str, fallback: Sequence[Endpoint]) -> str:
    """The cluster that a route names for `cluster`."""
    return f"{cluster}-chain" if fallback else cluster


def _cluster(name: str, url: str, limits: Limits) -> Json:
    parts = urlsplit(url)
    endpoint = {"endpoint": {"address": address(parts.hostname or "127.0.0.1", parts.port or 80)}}
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [_threshold(limits)]},
        "outlier_detection": _outliers(),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http()},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _threshold(limits: Limits) -> Json:
    return {
        "max_connections": limits.requests,
        "max_requests": limits.requests,
        "max_pending_requests": limits.waiting,
        "max_retries": limits.waiting,
    }


def _outliers() -> Json:
    """An address that cannot be reached, or answers 502 to 504, five times in a row rests for 5 s. A status 500 may be the
    request's own fault. Where every address rests, all are asked (Envoy's panic mode), so one engine alone is never shut out.
    """
    return {
        "consecutive_gateway_failure": 5,
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "base_ejection_time": "5s",
        "interval": "1s",
        "max_ejection_percent": 50,
    }


def _http(filters: Sequence[Json] = ()) -> Json:
    options: Json = {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": f"{ENGINE_IDLE_SECONDS}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    if filters:
        codec = {"@type": f"{TYPES}.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}
        options["http_filters"] = [*filters, {"name": "codec", "typed_config": codec}]
    return options


def _chain(name: str, fallback: Sequence[Endpoint]) -> Json:
    """The first attempt goes to `name`, each retry to the next fallback. Envoy retries only before the answer's first byte.

    Filters between gateway and engine are those of the chain: Envoy does not run its members' own.
    """
    members = [{"name": name}, *({"name": f"fallback-{number}"} for number in range(len(fallback)))]
    program = fallback_program([one.model for one in fallback])
    composite = {"@type": f"{TYPES}.extensions.clusters.composite.v3.ClusterConfig", "clusters": members}
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": f"{name}-chain",
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http([lua("name-fallback", program)])
        },
        "cluster_type": {"name": "envoy.clusters.composite", "typed_config": composite},
    }
