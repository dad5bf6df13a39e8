"""Pieces that all of Envoy's configuration is made of: addresses, watched files, filters, answers. Pure."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from serving.gateway.model import Json

TYPES = "type.googleapis.com/envoy"
HTTP = f"{TYPES}.extensions.filters.http"


def address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def watched(folder: Path, name: str) -> Json:
    return {
        "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
        "resource_api_version": "V3",
    }


def response(resources: list[Json]) -> Json:
    """A discovery response; its version is a digest of its content, so the same content has the same version."""
    text = json.dumps(resources, sort_keys=True)
    return {"version_info": hashlib.sha256(text.encode()).hexdigest()[:16], "resources": resources}


def version_of(found: Json) -> str:
    return str(found["version_info"])


def lua(name: str, source: str) -> Json:
    config = {"@type": f"{HTTP}.lua.v3.Lua", "default_source_code": {"inline_string": source}}
    return {"name": name, "typed_config": config}


def header(key: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    return {"header": {"key": key, "value": value}, "append_action": action}


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> Json:
    """OpenAI's shape of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def direct(status: int, body: Json) -> Json:
    return {"status": status, "body": {"inline_string": json.dumps(body)}}
