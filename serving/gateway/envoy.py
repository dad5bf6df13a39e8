"""Envoy's configuration as plain data: bootstrap, listener, clusters, routes. Pure.

A request's model name is read from its body into the header X-Gateway-Base-Model-Name (the name that the Gateway API
inference extension uses), the route for that name splits by weight over two clusters, and the chosen entry rewrites the
name in the body to the engine's name of that version. Documentation: envoyproxy.io, "Lua", "Weighted clusters", "xDS from files".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.gateway.lua import LUA, MODEL_HEADER, NOTHING, READ_NAME, REWRITE_NAME

VERSION_HEADER = "x-liftlock-version"
PATHS = ("/v1/chat/completions", "/v1/completions")
REQUEST_SECONDS = 300
ENGINE_IDLE_SECONDS = 4  # below vLLM's keep-alive of 5 s: a request never meets the engine closing its connection
BODY_LIMIT_BYTES = 4 << 20
LISTING_LIMIT_BYTES = 1 << 20  # Envoy's own limit is 4096, which some 50 model names exceed
TYPES = "type.googleapis.com/envoy"
Json = dict[str, Any]
NAME = re.compile(r"[A-Za-z0-9._/-]{1,200}")  # it goes into Lua source and header values


@dataclass(frozen=True)
class Split:
    """One public model name. `stable` and `candidate` are the engine's names; `weight` is the candidate's percent.

    `stable_engine` and `candidate_engine` are addresses of engines of their own; None: the gateway's engine.
    """

    model: str
    stable: str
    candidate: str | None = None
    weight: int = 0
    stable_engine: str | None = None
    candidate_engine: str | None = None

    def __post_init__(self) -> None:
        for name in (self.model, self.stable, self.candidate):
            if name is not None and not NAME.fullmatch(name):
                raise ValueError(f"model name {name!r}: only letters, digits, dots, dashes, slashes and underscores")
        if not 0 <= self.weight <= 100 or (self.weight and self.candidate is None):
            raise ValueError(f"split of {self.model}: weight {self.weight} needs a candidate and 0 to 100 percent")


def bootstrap(folder: Path, admin_port: int) -> Json:
    """Static part: the admin interface on loopback, everything else from watched files in `folder`."""

    def watched(name: str) -> Json:
        return {
            "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
            "resource_api_version": "V3",
        }

    return {
        "node": {"id": "liftlock", "cluster": "liftlock"},
        "admin": {"address": _address("127.0.0.1", admin_port)},
        "dynamic_resources": {"lds_config": watched("lds.json"), "cds_config": watched("cds.json")},
    }


def listeners(folder: Path, port: int) -> Json:
    """One HTTP listener on loopback; its routes come from rds.json, its access log goes to access.log as JSON lines."""
    rds = {
        "route_config_name": "models",
        "config_source": {
            "path_config_source": {"path": str(folder / "rds.json"), "watched_directory": {"path": str(folder)}},
            "resource_api_version": "V3",
        },
    }
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": rds,
        "stream_idle_timeout": f"{REQUEST_SECONDS}s",
        "access_log": [_access_log(folder / "access.log")],
        "http_filters": [
            _lua("read-model", LUA + READ_NAME),
            _lua("rewrite-model", NOTHING),
            {"name": "router", "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": "gateway",
        "address": _address("127.0.0.1", port),
        "per_connection_buffer_limit_bytes": BODY_LIMIT_BYTES,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return _response([listener])


def cluster_of(model: str, side: str, engine: str | None) -> str:
    """Each side of a split has counters of its own. A new engine is a new cluster: requests of the old one end where they began."""
    return f"{model}-{side}" + (f"-{hashlib.sha256(engine.encode()).hexdigest()[:8]}" if engine else "")


def clusters(engine_url: str, splits: Sequence[Split]) -> Json:
    """One for the base model and two a public model; a model may have several splits, the one of before and the one of now."""
    sides = {
        cluster_of(split.model, side, engine): engine or engine_url
        for split in splits
        for side, engine in (("stable", split.stable_engine), ("candidate", split.candidate_engine))
    }
    return _response([_cluster(name, engine) for name, engine in (("engine", engine_url), *sides.items())])


def routes(splits: Sequence[Split], base_model: str) -> Json:
    """The virtual host: /v1/models, a weighted route a split, the base model, and OpenAI-shaped 404s for the rest."""
    names = [*(split.model for split in splits), base_model]
    listing = {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "liftlock"} for name in names],
    }
    table = [
        {"match": {"path": "/v1/models"}, "direct_response": _direct(200, listing), **_without_model()},
        *(_split_route(split, path) for split in splits for path in PATHS),
        *(_base_route(base_model, path) for path in PATHS),
        *(_unknown_model(path, names) for path in PATHS),
        {
            "match": {"prefix": "/"},
            "direct_response": _direct(404, _error("there is nothing here; use /v1/chat/completions")),
            **_without_model(),
        },
    ]
    configuration = {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": "models",
        "max_direct_response_body_size_bytes": LISTING_LIMIT_BYTES,
        "virtual_hosts": [{"name": "models", "domains": ["*"], "routes": table}],
    }
    return _response([configuration])


def version_of(response: Json) -> str:
    return str(response["version_info"])


def _response(resources: list[Json]) -> Json:
    """A discovery response; its version is a digest of its content, so the same content has the same version."""
    text = json.dumps(resources, sort_keys=True)
    return {"version_info": hashlib.sha256(text.encode()).hexdigest()[:16], "resources": resources}


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _lua(name: str, source: str) -> Json:
    code = {"inline_string": source}
    return {
        "name": name,
        "typed_config": {"@type": f"{TYPES}.extensions.filters.http.lua.v3.Lua", "default_source_code": code},
    }


def _access_log(path: Path) -> Json:
    fields = {
        "time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "model": f"%REQ({MODEL_HEADER})%",
        "version": f"%RESP({VERSION_HEADER})%", "cluster": "%UPSTREAM_CLUSTER%", "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%", "milliseconds": "%DURATION%", "first_byte_milliseconds": "%RESPONSE_DURATION%",
        "bytes_in": "%BYTES_RECEIVED%", "bytes_out": "%BYTES_SENT%", "request_id": "%REQ(X-REQUEST-ID)%",
    }  # fmt: skip
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _cluster(name: str, engine_url: str) -> Json:
    parts = urlsplit(engine_url)
    endpoint = {"endpoint": {"address": _address(parts.hostname or "127.0.0.1", parts.port or 80)}}
    http = {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": f"{ENGINE_IDLE_SECONDS}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _match(path: str, model: str) -> Json:
    return {"path": path, "headers": [{"name": MODEL_HEADER, "string_match": {"exact": model}}]}


def _policy() -> Json:
    """Retries only where the engine cannot have seen the request."""
    retry = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 3}
    return {"timeout": f"{REQUEST_SECONDS}s", "retry_policy": retry}


def _side(split: Split, side: str, engine_model: str, weight: int) -> Json:
    engine = split.stable_engine if side == "stable" else split.candidate_engine
    source = {"inline_string": LUA + REWRITE_NAME % engine_model}
    rewrite = {"@type": f"{TYPES}.extensions.filters.http.lua.v3.LuaPerRoute", "source_code": source}
    return {
        "name": cluster_of(split.model, side, engine),
        "weight": weight,
        "typed_per_filter_config": {"rewrite-model": rewrite},
        "response_headers_to_add": [_header(VERSION_HEADER, engine_model)],
    }


def _split_route(split: Split, path: str) -> Json:
    sides = [_side(split, "stable", split.stable, 100 - split.weight)]
    if split.candidate is not None:
        sides.append(_side(split, "candidate", split.candidate, split.weight))
    return {"match": _match(path, split.model), "route": {"weighted_clusters": {"clusters": sides}, **_policy()}}


def _base_route(base_model: str, path: str) -> Json:
    return {
        "match": _match(path, base_model),
        "route": {"cluster": "engine", **_policy()},
        "response_headers_to_add": [_header(VERSION_HEADER, base_model)],
    }


def _unknown_model(path: str, names: Sequence[str]) -> Json:
    said = _error(f"this model is not served here; served: {', '.join(names)}", code="model_not_found")
    return {"match": {"path": path}, "direct_response": _direct(404, said), **_json_header()}


def _error(message: str, code: str | None = None) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _direct(status: int, body: Json) -> Json:
    return {"status": status, "body": {"inline_string": json.dumps(body)}}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _json_header() -> Json:
    return {"response_headers_to_add": [_header("content-type", "application/json")]}


def _without_model() -> Json:
    """A route that answers itself, whatever the body is."""
    unread = {"@type": f"{TYPES}.extensions.filters.http.lua.v3.LuaPerRoute", "disabled": True}
    return {"typed_per_filter_config": {"read-model": unread}, **_json_header()}
