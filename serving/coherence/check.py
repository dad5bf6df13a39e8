"""The check: files in, findings out, with what was suppressed. START HERE: read_paths → chains → rules → suppressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from serving.coherence.chains import chains
from serving.coherence.findings import Finding
from serving.coherence.given import Suppression, chain_file, suppressions
from serving.coherence.model import Chain, Hop
from serving.coherence.objects import InputInvalid, Inventory, read_paths
from serving.coherence.rules_pods import drains, queues, starts, zero
from serving.coherence.rules_retries import cancellation, keep_alive, layers, odd
from serving.coherence.rules_time import cut, find, first_chunk, implicit_routes, nesting, unbounded

RULES: Sequence[Callable[[Chain], Iterator[Finding]]] = (
    nesting, cut, unbounded, implicit_routes, first_chunk, layers, odd, cancellation, keep_alive, drains, starts, queues, zero,
)  # fmt: skip


@dataclass(frozen=True)
class Grouped:
    """One finding with every alias and client that it holds for."""

    finding: Finding
    aliases: tuple[str, ...]
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """The answer for a set of files."""

    inventory: Inventory
    chains: tuple[Chain, ...]
    findings: tuple[Grouped, ...]
    suppressed: tuple[Grouped, ...]
    notes: tuple[str, ...]


def check(paths: Sequence[Path], today: date, measured: Sequence[tuple[str, dict[str, Any]]] = ()) -> Checked:
    """`measured` are documents like a chain.yaml's, each with where it comes from; what the files say goes before.

    Raises InputInvalid, YamlRefused, DurationInvalid.
    """
    found = read_paths(paths)
    found.chains[:0] = measured
    made = chains(found)
    if not made:
        raise InputInvalid(
            f"{found.files} files, {len(found.objects)} objects, and no chain to a model in them; name the router's "
            "configuration, routes and engines together, or write the hops into a chain.yaml"
        )
    held, dropped = _sort(findings(made), suppressions(*chain_file(found)), today)
    notes = tuple(dict.fromkeys(f"{chain.alias}: {note}" for chain in made for note in chain.notes))
    return Checked(found, tuple(made), group(held), group(dropped), notes)


def findings(made: Sequence[Chain]) -> list[Finding]:
    """Of every rule on every chain, in the order of the rules."""
    found = [each for chain in made for rule in RULES for each in rule(chain)]
    return [*found, *_two_paths(made)]


def _two_paths(made: Sequence[Chain]) -> Iterator[Finding]:
    first: dict[tuple[str, str], Chain] = {}
    for chain in made:
        other = first.setdefault((chain.alias, chain.client), chain)
        mine, its = [_signature(hop) for hop in chain.hops[1:]], [_signature(hop) for hop in other.hops[1:]]
        if mine != its:
            hop = chain.hops[-1]
            at = hop.whole.total if hop.whole.total.value is not None else hop.whole.patience()
            message = f"{chain.alias} goes to {other.engine.name} and to {chain.engine.name} under different limits"
            yield find(chain, "alias-two-paths", hop.name, message, "give both the same limits, or two aliases", at)


def _signature(hop: Hop) -> tuple[float | None, ...]:
    values = (
        at.value for each in (hop.whole, hop.streaming) for at in (each.total, each.attempt, each.first, each.idle)
    )
    return (*values, hop.retries.value)


def _sort(found: list[Finding], rules: list[Suppression], today: date) -> tuple[list[Finding], list[Finding]]:
    held, dropped, expired = [], [], []
    for each in found:
        matching = [rule for rule in rules if _matches(rule, each)]
        if any(rule.expires >= today for rule in matching):
            dropped.append(each)
        else:
            held.append(each)
            expired += [rule for rule in matching if rule not in expired]
    for rule in expired:
        message = f"accepted until {rule.expires} ({rule.reason}), and still there"
        change = "mend it, or accept it again with a later date"
        held.append(Finding("suppression-expired", rule.alias, rule.client, rule.rule, message, change, rule.where))
    return held, dropped


def _matches(rule: Suppression, found: Finding) -> bool:
    pairs = ((rule.alias, found.alias), (rule.client, found.client), (rule.hop, found.hop))
    return rule.rule == found.rule and all(not wanted or wanted == has for wanted, has in pairs)


def group(found: Sequence[Finding]) -> tuple[Grouped, ...]:
    """Findings of one rule about one value are one; the one that asks for most is told."""
    grouped: dict[tuple[str, str, str], list[Finding]] = {}
    for each in found:
        grouped.setdefault((each.rule, each.hop, each.at.where), []).append(each)
    return tuple(
        Grouped(
            max(same, key=lambda each: each.need),
            tuple(dict.fromkeys(each.alias for each in same if each.alias)),
            tuple(dict.fromkeys(each.client for each in same if each.client)),
        )
        for same in grouped.values()
    )
