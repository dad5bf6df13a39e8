"""What the gateway is told: splits of public model names, further endpoints, and limits. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
VERSION_HEADER = "x-liftlock-version"
MODEL_HEADER = "x-gateway-base-model-name"  # the name that the Gateway API inference extension uses
CLIENT_HEADER = "x-liftlock-client"
HEADER = re.compile(r"[a-z0-9-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9._/-]{1,200}")  # it goes into configuration, header values and Lua patterns' results


@dataclass(frozen=True)
class Split:
    """One public model name. `stable` and `candidate` are the engine's names; `weight` is the candidate's percent.

    `stable_engine` and `candidate_engine` are addresses of engines of their own; None: the gateway's engine. `sticky` names a
    request header, such as x-session-id: the same value gets the same version; requests without it are drawn. `closed`: its engine
    is being replaced, and clients are told to ask again after so many seconds, or a fallback on another server answers. `mirror`:
    percent of the requests of which the candidate gets a copy, whose answer is dropped; then it has no weight.
    """

    model: str
    stable: str
    candidate: str | None = None
    weight: int = 0
    stable_engine: str | None = None
    candidate_engine: str | None = None
    sticky: str | None = None
    closed: int | None = None
    mirror: int = 0

    def __post_init__(self) -> None:
        for name in (self.model, self.stable, self.candidate):
            if name is not None:
                check_name(name)
        if self.sticky is not None and not HEADER.fullmatch(self.sticky):
            raise ValueError(f"sticky header {self.sticky!r} of {self.model}: only small letters, digits and dashes")
        if not 0 <= self.weight <= 100 or (self.weight and self.candidate is None):
            raise ValueError(f"split of {self.model}: weight {self.weight} needs a candidate and 0 to 100 percent")
        if self.mirror and (self.candidate is None or self.weight or not 0 < self.mirror <= 100):
            raise ValueError(f"split of {self.model}: a shadow needs a candidate without weight, and 1 to 100 percent")


@dataclass(frozen=True)
class Endpoint:
    """Another OpenAI-compatible server: `model` is the name that it serves, `url` has no /v1."""

    model: str
    url: str

    def __post_init__(self) -> None:
        check_name(self.model)
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"endpoint of {self.model}: {self.url!r} is not an address like http://host:port")


def endpoint_of(text: str) -> Endpoint:
    """From MODEL@http://host:port. Raises ValueError."""
    model, found, url = text.strip().partition("@")
    if not found:
        raise ValueError(f"{text!r} is no endpoint; required: MODEL@http://host:port")
    return Endpoint(model, url.rstrip("/").removesuffix("/v1"))


@dataclass(frozen=True)
class Limits:
    """What one request and all requests of one side may take.

    A prompt of 220 KB is 0.3 MB of JSON at the worst, so `body_bytes` has room for ten of them. `requests` are under way a side
    of a split, and `waiting` wait: as many, because each of a burst waits for its connection. Beyond both clients get 503 at
    once instead of a place in a queue that outlasts them.
    """

    body_bytes: int = 4 << 20
    header_kib: int = 60
    request_seconds: int = 300
    receive_seconds: int = 30
    requests: int = 512
    waiting: int = 512


DEFAULT_LIMITS = Limits()


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"model name {name!r}: only letters, digits, dots, dashes, slashes and underscores")
