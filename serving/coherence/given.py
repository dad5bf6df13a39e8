"""chain.yaml: what no manifest says. Measured figures of engines, clients, hops of other programs, and suppressions.

liftlock: chain
clients: [{name: batch, total: 900s, retries: 0, modes: whole}]
engines: {"*": {tokens_per_second: 66, prefill: 2s, queue: 20s, max_tokens: 4096, cold_start: 300s, wake: 60s}}
hops: {my-alias: [{name: proxy, kind: route, total: 300s, retries: 0}]}
suppress: [{rule: no-pre-stop, hop: LiteLLM, reason: one replica, expires: 2027-01-31}]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from serving.coherence.duration import seconds
from serving.coherence.findings import RULES
from serving.coherence.model import Engine, Hop, Limits, Setting
from serving.coherence.objects import InputInvalid, Inventory, items, mapping, merge_values
from serving.coherence.read_clients import read

TOP = {"liftlock", "clients", "engines", "hops", "suppress", "aliases"}
ENGINE = {"tokens_per_second", "inter_token", "prefill", "queue", "max_tokens", "cold_start", "wake", "max_num_seqs"}
HOP = {"name", "kind", "total", "attempt", "first", "idle", "connect", "retries", "backoff", "cancels", "queue",
       "retries_after_first_byte", "hedges", "readiness", "pool_idle", "jitter", "waits_after_last"}  # fmt: skip
KINDS = "route", "router", "interceptor"


@dataclass(frozen=True)
class Suppression:
    """Findings that are accepted for a while. Empty alias, client or hop: any."""

    rule: str
    reason: str
    expires: date
    alias: str
    client: str
    hop: str
    where: Setting


def chain_file(found: Inventory) -> tuple[dict[str, Any], str]:
    """All chain.yaml files as one: later ones win, key by key. Raises InputInvalid."""
    merged: dict[str, Any] = {}
    for file, document in found.chains:
        unknown = set(document) - TOP
        if unknown:
            raise InputInvalid(f"{file}: unknown key {', '.join(sorted(unknown))}; known: {', '.join(sorted(TOP))}")
        merged = merge_values(merged, document)
    return merged, found.chains[-1][0] if found.chains else "chain.yaml"


def with_figures(engine: Engine, chain: dict[str, Any], alias: str, file: str) -> Engine:
    """The engine with what is known of it: `*`, then by the workload's name, then by alias."""
    blocks = mapping(chain.get("engines"), f"{file}: engines")
    figures: dict[str, Any] = {}
    for key in ("*", engine.name, engine.name.rpartition("/")[2], alias):
        figures |= mapping(blocks.get(key), f"{file}: engines.{key}")
    unknown = set(figures) - ENGINE
    if unknown:
        raise InputInvalid(f"{file}: engines: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(ENGINE))}")
    counts = ("tokens_per_second", "max_tokens")
    timed = {key: value for key, value in figures.items() if key not in counts}
    times = {key: seconds(value, "any", f"{file}: engines.{key}") for key, value in timed.items()}
    rate = figures.get("tokens_per_second")
    step = times.get("inter_token")
    if rate is not None:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
            raise InputInvalid(f"{file}: tokens_per_second: {rate!r} is no positive number")
        step = 1.0 / float(rate)
    limit = figures.get("max_tokens")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputInvalid(f"{file}: max_tokens: {limit!r} is no positive whole number")
    scaling = replace(engine.scaling, wake=times.get("wake")) if engine.scaling else None
    seqs = Setting(times["max_num_seqs"], f"{file}: max_num_seqs") if "max_num_seqs" in times else engine.max_num_seqs
    return replace(
        engine, queue_wait=times.get("queue", engine.queue_wait), prefill=times.get("prefill", engine.prefill),
        inter_token=step or engine.inter_token, max_tokens=limit or engine.max_tokens, max_num_seqs=seqs,
        cold_start=times.get("cold_start"), scaling=scaling,
    )  # fmt: skip


def given_hops(chain: dict[str, Any], file: str) -> dict[str, tuple[Hop, ...]]:
    """Chains that are written out, by alias."""
    blocks = mapping(chain.get("hops"), f"{file}: hops")
    return {
        alias: tuple(_hop(each, file) for each in items(entries, f"{file}: hops.{alias}"))
        for alias, entries in blocks.items()
    }


def _hop(entry: dict[str, Any], file: str) -> Hop:
    unknown, kind = set(entry) - HOP, str(entry.get("kind", "route"))
    if unknown or "name" not in entry or kind not in KINDS:
        wrong = ", ".join(sorted(unknown)) or ("no name" if "name" not in entry else f"kind {kind}")
        raise InputInvalid(f"{file}: hops: {wrong}; keys: {', '.join(sorted(HOP))}; kinds: {', '.join(KINDS)}")
    limits = Limits(*(read(entry, key, file) for key in ("total", "attempt", "first", "idle")))
    backoff = read(entry, "backoff", file)
    made = Hop(
        str(entry["name"]), kind, limits, limits, read(entry, "retries", file), (backoff.value or 0.0, 8.0), backoff,
        read(entry, "connect", file), cancels=entry.get("cancels", True) is not False, hedges=entry.get("hedges") is True,
        retries_after_first_byte=entry.get("retries_after_first_byte") is True, queue=read(entry, "queue", file),
        readiness=read(entry, "readiness", file), pool_idle=read(entry, "pool_idle", file),
    )  # fmt: skip
    jitter = read(entry, "jitter", file).value or 0.0
    return replace(made, jitter=jitter, waits_after_last=entry.get("waits_after_last") is True)


def suppressions(chain: dict[str, Any], file: str) -> list[Suppression]:
    """Each needs a rule, a reason and an expiry. Raises InputInvalid."""
    found = []
    for entry in items(chain.get("suppress"), f"{file}: suppress"):
        rule, reason, until = (str(entry.get(key) or "") for key in ("rule", "reason", "expires"))
        where = f"{file}:{getattr(entry, 'line', 1)}: suppress {rule or '?'}"
        if rule not in RULES:
            raise InputInvalid(f"{where}: no such rule; rules: {', '.join(RULES)}")
        if len(reason.split()) < 2 or not until:
            raise InputInvalid(f"{where}: needs a reason of some words and expires: YYYY-MM-DD")
        try:
            expires = date.fromisoformat(until)
        except ValueError:
            raise InputInvalid(f"{where}: expires {until[:20]!r} is no date; write YYYY-MM-DD") from None
        alias, client, hop = (str(entry.get(key) or "") for key in ("alias", "client", "hop"))
        at = Setting(None, where, False, file, getattr(entry, "line", 1))
        found.append(Suppression(rule, reason, expires, alias, client, hop, at))
    return found
