"""The access log: what a line holds. No prompt, no answer, no key and no query string can get into it. Pure."""

from __future__ import annotations

from pathlib import Path

from serving.gateway.model import CLIENT_HEADER, MODEL_HEADER, VERSION_HEADER, Json
from serving.gateway.parts import TYPES

TOKENS = "liftlock.tokens"  # dynamic metadata that rewrite.lua fills from the answer's usage
FIELDS = {
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
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
}


def access_log(path: Path) -> Json:
    without_query = {"@type": f"{TYPES}.extensions.formatter.req_without_query.v3.ReqWithoutQuery"}
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {
                "json_format": FIELDS,
                "formatters": [{"name": "envoy.formatter.req_without_query", "typed_config": without_query}],
            },
        },
    }
