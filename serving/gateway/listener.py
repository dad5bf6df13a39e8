"""The gateway's listener: what is stripped, the filters in their order, the access log, and errors of Envoy's own. Pure."""

from __future__ import annotations

from pathlib import Path

from serving.gateway.access_log import access_logs
from serving.gateway.envoy import OTLP_CLUSTER
from serving.gateway.lua import NOTHING, REWRITE
from serving.gateway.model import CLIENT_HEADER, DEFAULT_LIMITS, VERSION_HEADER, Json, Limits
from serving.gateway.parts import HTTP, TYPES, address, error, header, lua, response, watched

STATS = "gateway"  # of Envoy's counters: http.gateway.…
BEGUN = f"http.{STATS}.downstream_rq_active"
ASKED_ID = "x-liftlock-asked-id"
FORGED = (CLIENT_HEADER, VERSION_HEADER, ASKED_ID, "x-liftlock-name-at", "remote-user", "x-remote-user", "forwarded",
          "x-real-ip", "true-client-ip", "cf-connecting-ip")  # fmt: skip
FORGED_PREFIXES = (
    "x-gateway-",
    "x-envoy-",
    "x-forwarded-",
    "x-auth-",
    "x-user-",
    "x-litellm-",
    "x-openwebui-",
    "x-amzn-",
)
LATER = (429, 503)  # these say when to come back
REPLACED = 503  # also the answer of a route that is closed while its engine is replaced, which says so itself
# what Envoy itself answers: status, code, type, message, and whether OpenAI's client should ask again by itself
OWN_ERRORS: tuple[tuple[int, str, str, str, bool], ...] = (
    (408, "request_timeout", "invalid_request_error", "the request did not arrive whole in time; send it again", True),
    (413, "request_too_large", "invalid_request_error", "the request's body is larger than the gateway takes; send a shorter prompt", False),
    (426, "http_version", "invalid_request_error", "this HTTP version is not spoken here; use HTTP/1.1", False),
    (429, "rate_limit_exceeded", "rate_limit_exceeded", "this API key has used up its requests of this minute; wait and ask again", True),
    (431, "headers_too_large", "invalid_request_error", "the request's headers are larger than the gateway takes; send fewer", False),
    (500, "gateway_failed", "server_error", "the gateway failed; see `liftlock logs envoy`", False),
    (502, "engine_failed", "server_error", "the engine's answer was no HTTP; see `liftlock logs vllm`", False),
    (503, "engine_unavailable", "server_error", "no engine could take the request now; the gateway has tried again already", False),
    (504, "engine_timeout", "server_error", "the engine did not answer in time; ask for fewer tokens, or stream", False),
)  # fmt: skip


def listeners(folder: Path, port: int, limits: Limits = DEFAULT_LIMITS, otlp: bool = False) -> Json:
    """One HTTP listener on loopback; its routes come from rds.json, its access log goes to access.log as JSON lines."""
    listener = {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": "gateway",
        "address": address("127.0.0.1", port),
        "per_connection_buffer_limit_bytes": limits.body_bytes,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": _manager(folder, limits, otlp)}]}],
    }
    return response([listener])


def _manager(folder: Path, limits: Limits, otlp: bool) -> Json:
    tracing = {"tracing": _tracing()} if otlp else {}
    return {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STATS,
        "rds": {"route_config_name": "models", "config_source": watched(folder, "rds.json")},
        "stream_idle_timeout": f"{limits.request_seconds}s",
        "request_timeout": f"{limits.receive_seconds}s",
        "request_headers_timeout": f"{limits.receive_seconds}s",
        "max_request_headers_kb": limits.header_kib,
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_strip()],
        "access_log": access_logs(folder / "access.log"),
        "local_reply_config": {"mappers": [_own_error(*row) for row in OWN_ERRORS]},
        "http_filters": _filters(),
        **tracing,
    }


def _filters() -> list[Json]:
    """In this order. The routes bring `front` its program; the last one also reads the tokens out of the answer."""
    return [
        lua("front", NOTHING),
        {
            "name": "limit",
            "typed_config": {"@type": f"{HTTP}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit"},
        },
        lua("rewrite-model", REWRITE),
        {"name": "router", "typed_config": {"@type": f"{HTTP}.router.v3.Router", "suppress_envoy_headers": True}},
    ]


def _strip() -> Json:
    """Before anything reads them: headers that say who the client is or what the gateway decided. The client's request id is
    set aside, because a long or strange one must not take the place of Envoy's own.
    """
    prefixes = "|".join(FORGED_PREFIXES)
    mutations: list[Json] = [{"remove": name} for name in FORGED]
    mutations.append({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": f"({prefixes}).*"}}}})
    kept = {"header": {"key": ASKED_ID, "value": "%REQ(X-REQUEST-ID)%"}, "append_action": "ADD_IF_ABSENT"}
    mutations += [{"append": kept}, {"remove": "x-request-id"}]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPES}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }


def _own_error(status: int, code: str, kind: str, message: str, again: bool) -> Json:
    equal = {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": f"liftlock.status.{status}"}}}
    filters: list[Json] = [{"status_code_filter": equal}]
    if status == REPLACED:  # a route's own answer has no flag
        filters.append({"response_flag_filter": {}})
    chosen = filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}}
    return {"filter": chosen, **_reply(error(message, kind, code), again, status in LATER)}


def _reply(body: Json, again: bool, later: bool) -> Json:
    headers = [
        header("traceparent", "%REQ(TRACEPARENT)%", "ADD_IF_ABSENT"),
        header("x-should-retry", "true") if again else header("x-should-retry", "false", "ADD_IF_ABSENT"),
    ]
    if later:
        headers.append(header("retry-after", "1", "ADD_IF_ABSENT"))
    return {
        "headers_to_add": headers,
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


def _tracing() -> Json:
    service = {
        "http_uri": {"uri": "http://otlp/v1/traces", "cluster": OTLP_CLUSTER, "timeout": "1s"},
    }
    config = {
        "@type": f"{TYPES.replace('/envoy', '/envoy.config')}.trace.v3.OpenTelemetryConfig",
        "service_name": "liftlock-gateway",
        "http_service": service,
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
        "spawn_upstream_span": True,
    }
