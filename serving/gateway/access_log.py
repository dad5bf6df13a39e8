"""The access log: what a line holds. No prompt, no answer, no key and no query string can get into it. Pure.

A format has no conditions, so there are two, one with the first token's time for streams: the first byte of an engine's body is
the first token's there, while headers come as soon as the request is taken. In a whole answer it is the last token's.
"""

from __future__ import annotations

from pathlib import Path

from serving.gateway.model import CLIENT_HEADER, MODEL_HEADER, VERSION_HEADER, Json
from serving.gateway.parts import TYPES

TOKENS = (
    "liftlock.tokens"  # dynamic metadata that rewrite.lua fills: the answer's usage, and `stream` for an event stream
)
FIRST_TOKEN = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%"  # noqa: S105 - a time
FIELDS: Json = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID):128%",
    "traceparent": "%REQ(TRACEPARENT):55%",
    "client": f"%REQ({CLIENT_HEADER}):64%",
    "purpose": "%REQ(X-LIFTLOCK-PURPOSE):32%",
    "method": "%REQ(:METHOD):10%",
    "path": "%REQ_WITHOUT_QUERY(:PATH):100%",
    "model": f"%REQ({MODEL_HEADER}):200%",
    "version": f"%RESP({VERSION_HEADER}):200%",
    "weights": "%METADATA(ROUTE:liftlock:weights)%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "prompt_tokens": f"%DYNAMIC_METADATA({TOKENS}:prompt)%",
    "completion_tokens": f"%DYNAMIC_METADATA({TOKENS}:completion)%",
    "milliseconds": "%DURATION%",
    "first_byte_milliseconds": "%RESPONSE_DURATION%",
    "first_token_milliseconds": None,
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
}


def access_logs(path: Path) -> list[Json]:
    """Every request is in one of the two, whatever became of it."""
    return [_log(path, {**FIELDS, "first_token_milliseconds": FIRST_TOKEN}, True), _log(path, FIELDS, False)]


def _log(path: Path, fields: Json, stream: bool) -> Json:
    without_query = {"@type": f"{TYPES}.extensions.formatter.req_without_query.v3.ReqWithoutQuery"}
    is_stream = {"filter": TOKENS, "path": [{"key": "stream"}], "value": {"bool_match": stream}}
    return {
        "name": "file",
        "filter": {"metadata_filter": {"matcher": is_stream, "match_if_key_not_found": not stream}},
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {
                "json_format": fields,
                "formatters": [{"name": "envoy.formatter.req_without_query", "typed_config": without_query}],
            },
        },
    }
