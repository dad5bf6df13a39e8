"""The gateway's routes: the listing, a weighted route a split, the base model, further endpoints, and 404s. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.gateway.envoy import chain_of, cluster_of
from serving.gateway.keys import Key
from serving.gateway.lua import front
from serving.gateway.model import (
    CLIENT_HEADER,
    DEFAULT_LIMITS,
    MODEL_HEADER,
    VERSION_HEADER,
    Endpoint,
    Json,
    Limits,
    Split,
)
from serving.gateway.parts import HTTP, TYPES, direct, error, header, response

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
LISTING_LIMIT_BYTES = 1 << 20  # Envoy's own limit is 4096, which some 50 model names exceed
UNLIMITED = {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"}


@dataclass(frozen=True)
class Table:
    """All that the routes depend on. `keys` None: no key is asked for."""

    splits: Sequence[Split]
    base_model: str
    keys: Sequence[Key] | None = None
    fallback: Sequence[Endpoint] = ()
    endpoints: Sequence[Endpoint] = ()
    limits: Limits = DEFAULT_LIMITS
    engine_url: str = ""

    @property
    def names(self) -> list[str]:
        """Each once: an endpoint may repeat the name of a split or of the base, which come before it."""
        named = (*(split.model for split in self.splits), self.base_model, *(one.model for one in self.endpoints))
        return [*dict.fromkeys(named)]


BACKOFF_SECONDS = (
    0.3  # longest wait before a retry (Envoy: ten times 25 ms), so that the last try is not cut by the total
)


def routes(table: Table) -> Json:
    """The one virtual host, with what it gives the filters."""
    configuration = {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": "models",
        "max_direct_response_body_size_bytes": LISTING_LIMIT_BYTES,
        "response_headers_to_add": [header("traceparent", "%REQ(TRACEPARENT)%"), *_tried(table)],
        "virtual_hosts": [
            {
                "name": "models",
                "domains": ["*"],
                "routes": _routes(table),
                "include_request_attempt_count": bool(table.fallback),
                "typed_per_filter_config": {"front": _front(table), **_rates(table.keys or ())},
            }
        ],
    }
    return response([configuration])


def _routes(table: Table) -> list[Json]:
    return [
        *(_listing(table, key.models, key.client) for key in table.keys or () if key.models is not None),
        _listing(table),
        *(_card_route(name) for name in table.names),
        *(
            _split_route(split, path, table)
            if split.closed is None
            else _closed_route(split, split.closed, path, table)
            for split in table.splits
            for path in PATHS
        ),
        *(_plain_route(table, path, table.base_model, chain_of("engine", table.fallback)) for path in PATHS),
        *(_plain_route(table, path, one.model, f"at-{one.model}") for one in table.endpoints for path in PATHS),
        *(_unknown_model(path, table.names) for path in PATHS),
        {
            "match": {"prefix": "/"},
            "direct_response": direct(404, error(f"there is nothing here; use {PATHS[0]}")),
            **_json(),
        },
    ]


def _tried(table: Table) -> list[Json]:
    """With a fallback the gateway has asked again already, so the client should not, whatever the engine answered."""
    return [header("x-should-retry", "false", "ADD_IF_ABSENT")] if table.fallback else []


def _front(table: Table) -> Json:
    return {"@type": f"{HTTP}.lua.v3.LuaPerRoute", "source_code": {"inline_string": front(PATHS, table.keys)}}


def _by(name: str, key: str) -> Json:
    return {"request_headers": {"header_name": name, "descriptor_key": key, "skip_if_absent": True}}


def _rates(keys: Sequence[Key]) -> Json:
    """A bucket a limited client; everybody else is not limited. Every change of the routes fills the buckets again."""
    limited = [
        {
            "entries": [{"key": "client", "value": key.client}],
            "token_bucket": {"max_tokens": key.per_minute, "tokens_per_fill": key.per_minute, "fill_interval": "60s"},
        }
        for key in keys
        if key.per_minute is not None
    ]
    if not limited:
        return {}
    everywhere = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    config = {
        "@type": f"{HTTP}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": UNLIMITED,
        "filter_enabled": {**everywhere, "runtime_key": "liftlock.limit.enabled"},
        "filter_enforced": {**everywhere, "runtime_key": "liftlock.limit.enforced"},
        "descriptors": limited,
        "rate_limits": [{"actions": [_by(CLIENT_HEADER, "client")]}],
        "always_consume_default_token_bucket": False,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
    }
    return {"limit": config}


def _listing(table: Table, allowed: Sequence[str] | None = None, client: str | None = None) -> Json:
    """What is served, or of that what one client may ask for."""
    names = [name for name in table.names if allowed is None or name in allowed]
    body = {"object": "list", "data": [_card(name) for name in names]}
    headers = [] if client is None else [_is(CLIENT_HEADER, client)]
    return {"match": {"path": "/v1/models", "headers": headers}, "direct_response": direct(200, body), **_json()}


def _card(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "liftlock"}


def _card_route(name: str) -> Json:
    """One model of the listing, as `client.models.retrieve(name)` asks for it."""
    return {"match": {"path": f"/v1/models/{name}"}, "direct_response": direct(200, _card(name)), **_json()}


def _is(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _match(path: str, model: str) -> Json:
    return {"path": path, "headers": [_is(MODEL_HEADER, model)]}


def _policy(table: Table) -> Json:
    """The one place with timeouts and retries. Without a fallback only what the engine cannot have seen is tried again."""
    untouched = "connect-failure,refused-stream,reset-before-request"
    if not table.fallback:
        retry: Json = {"retry_on": untouched, "num_retries": 3}
    else:
        retry = {
            "retry_on": f"{untouched},reset,retriable-status-codes",
            "retriable_status_codes": [404, 500, 502, 503],
            "num_retries": len(table.fallback),
            "per_try_timeout": f"{(table.limits.request_seconds - BACKOFF_SECONDS * len(table.fallback)) / (1 + len(table.fallback)):.3f}s",
        }
    return {"timeout": f"{table.limits.request_seconds}s", "retry_policy": retry}


def _side(split: Split, side: str, engine_model: str, weight: int, table: Table) -> Json:
    engine = split.stable_engine if side == "stable" else split.candidate_engine
    return _context(chain_of(cluster_of(split.model, side, engine), table.fallback), engine_model, weight)


def _context(cluster: str, engine_model: str, weight: int) -> Json:
    """One cluster of a draw, with the name that the request is rewritten to."""
    context = {"@type": f"{HTTP}.lua.v3.LuaPerRoute", "filter_context": {"model": engine_model}}
    return {
        "name": cluster,
        "weight": weight,
        "typed_per_filter_config": {"rewrite-model": context},
        "response_headers_to_add": [header(VERSION_HEADER, engine_model, "ADD_IF_ABSENT")],
    }


def _split_route(split: Split, path: str, table: Table) -> Json:
    sides = [_side(split, "stable", split.stable, 100 - split.weight, table)]
    weights = {"stable": 100}
    if split.candidate is not None:
        sides.append(_side(split, "candidate", split.candidate, split.weight, table))
        weights = {"stable": 100 - split.weight, "candidate": split.weight}
    sticky: Json = {"hash_policy": [{"header": {"header_name": split.sticky}}]} if split.sticky else {}
    draw = {"clusters": sides, **({"use_hash_policy": True} if split.sticky else {})}
    return {
        "match": _match(path, split.model),
        "route": {"weighted_clusters": draw, **sticky, **_policy(table), **_copies(split)},
        "metadata": {"filter_metadata": {"liftlock": {"weights": weights}}},
    }


def _copies(split: Split) -> Json:
    if not split.mirror:
        return {}
    share = {"default_value": {"numerator": split.mirror, "denominator": "HUNDRED"}}
    cluster = cluster_of(split.model, "mirror", split.candidate_engine)
    return {"request_mirror_policies": [{"cluster": cluster, "runtime_fraction": share}]}


def _closed_route(split: Split, seconds: int, path: str, table: Table) -> Json:
    """While the engine is replaced: the first fallback on another server, or when to ask again."""
    for number, one in enumerate(table.fallback):
        if one.url != table.engine_url:
            side = _context(f"fallback-{number}", one.model, 100)
            return {
                "match": _match(path, split.model),
                "route": {"weighted_clusters": {"clusters": [side]}, **_policy(table)},
            }
    said = error(f"this model's engine is being replaced; ask again in {seconds} s", code="engine_unavailable")
    headers = [
        header("content-type", "application/json"),
        header("retry-after", str(seconds)),
        header("x-should-retry", "true"),
    ]
    refused = {"direct_response": direct(503, said), "response_headers_to_add": headers}
    return {"match": _match(path, split.model), **refused}


def _plain_route(table: Table, path: str, model: str, cluster: str) -> Json:
    return {
        "match": _match(path, model),
        "route": {"cluster": cluster, **_policy(table)},
        "response_headers_to_add": [header(VERSION_HEADER, model, "ADD_IF_ABSENT")],
    }


def _unknown_model(path: str, names: Sequence[str]) -> Json:
    said = error(f"this model is not served here; served: {', '.join(names)}", code="model_not_found")
    return {"match": {"path": path}, "direct_response": direct(404, said), **_json()}


def _json() -> Json:
    return {"response_headers_to_add": [header("content-type", "application/json")]}
