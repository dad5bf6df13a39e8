"""Durations as each program writes them, in seconds. Pure.

Gateway API: GEP-2257 (`1h2m3s4ms`, no sign, no fraction). Go (Envoy Gateway, KEDA): fractions, `us`, `ns`. Envoy: protobuf JSON, `0.25s` only,
or {seconds, nanos}. Kubernetes' own fields, LiteLLM, vLLM and OpenAI's SDK: a plain number of seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
GATEWAY = re.compile(r"(?:\d{1,5}(?:h|ms|m|s)){1,4}")
GO = re.compile(r"(?:\d{1,18}(?:\.\d{0,18})?(?:h|ms|us|µs|μs|ns|m|s))+")
PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|us|µs|μs|ns|m|s)")
PROTO = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)s")
NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
STYLES = "gateway", "go", "proto", "number", "any"


class DurationInvalid(Exception):
    """A time limit that its program would not take."""


def seconds(value: object, style: str, where: str) -> float:
    """`style` is one of STYLES; `any` takes a number of seconds or Go's notation. Raises DurationInvalid."""
    if isinstance(value, Mapping) and style == "proto":
        return _plain(value.get("seconds", 0), where) + _plain(value.get("nanos", 0), where) / 1e9
    if style == "number" or (style == "any" and (not isinstance(value, str) or NUMBER.fullmatch(value))):
        return _plain(value, where)
    pattern, example = {"gateway": (GATEWAY, "300s"), "proto": (PROTO, "300s")}.get(style, (GO, "5m0s"))
    text = value if isinstance(value, str) else ""
    if text == "0" and style in ("go", "any"):
        return 0.0
    if not pattern.fullmatch(text):
        raise DurationInvalid(f"{where}: {str(value)[:40]!r} is no duration there; write it as {example}")
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))


def _plain(value: object, where: str) -> float:
    """A number, or its text (environment variables have nothing else)."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and NUMBER.fullmatch(text):
        text = float(text)
    if isinstance(text, bool) or not isinstance(text, int | float) or not math.isfinite(text) or not 0 <= text < 1e12:
        raise DurationInvalid(f"{where}: {str(value)[:40]!r} is no number of seconds; write a plain number")
    return float(text)


def shown(value: float | None) -> str:
    """`300 s`, `1.5 s`, `no limit`."""
    if value is None or math.isinf(value):
        return "no limit"
    return f"{value:,.0f} s" if value >= 10 or value == int(value) else f"{value:.3g} s"
