"""Error rates, power and items of the sequential gate on simulated releases. `make bench-gate`, `ARGS=--short` for a look.

Each cell draws releases whose true difference is known. The gate looks after every block of 8 items. The last table holds
rules that are in common use on the same draws, looked at as often. Ends with one line of JSON; exit code 1 where a figure
is missed. The short form has too few releases to judge by and only warns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench.gate_cells import ALPHA, Cell, cell, draw
from tests.bench.gate_methods import METHODS, fixed, liftlock

BATCH = 1000
MOST_POWER_LOST = 0.03
MOST_ITEMS = {0.0: 0.70, 0.02: 0.40, -0.10: 0.20, -0.20: 0.08}  # of the fixed-size test's, by the true difference
TYPICAL = [cell("binary", "non_inferior", 0.05, *both) for both in ((0.8, 0.4), (0.75, 0.5), (0.7, 0.5), (0.5, 0.6))]
OTHERS = [
    *(
        cell("binary", "non_inferior", 0.05, *both)
        for both in ((0.5, 0.2), (0.5, 0.8), (0.6, 0.4), (0.9, 0.2), (0.9, 0.5), (0.95, 0.2), (0.95, 0.8))
    ),
    cell("binary", "non_inferior", 0.03, 0.8, 0.4),
    cell("binary", "non_inferior", 0.10, 0.8, 0.4),
    cell("binary", "superior", 0.0, 0.8, 0.4, effect=0.05),
    cell("slices", "non_inferior", 0.05, 0.8, 0.4),
    cell("clusters", "non_inferior", 0.05, 0.8, 0.4),
    cell("graded", "non_inferior", 0.05, 0.8, 0.4),
    Cell("floor", "floor", 0.80, 0.80, 0.0, 600),
]


@dataclass(frozen=True)
class Rates:
    """Shares of the releases, and the mean items as a share of the cell's."""

    promoted: float
    rejected: float
    items: float
    fixed: float


def effect_of(one: Cell) -> float:
    """A truth that a good gate promotes: an equal model within a margin, a better one elsewhere."""
    return {"non_inferior": 0.0, "superior": 0.05, "floor": 0.85}[one.rule]


def measure(one: Cell, difference: float, releases: int, seed: int) -> Rates:
    random, found = np.random.default_rng(seed), []
    for _ in range(releases // BATCH):
        draws = draw(one, difference, BATCH, random)
        promoted, rejected, used = liftlock(one, draws)
        items = used.mean() / draws.single.shape[1]
        found.append((promoted.mean(), rejected.mean(), items, fixed(one, draws).mean()))
    return Rates(*(float(value) for value in np.mean(found, axis=0)))


def peers(one: Cell, releases: int, seed: int) -> dict[str, tuple[float, float]]:
    """(false promotions, items of an equal candidate) by method, on the same draws as the gate's."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    randoms = [np.random.default_rng(seed + place) for place in (0, 1)]
    for _ in range(releases // BATCH):
        null, equal = (draw(one, truth, BATCH, random) for truth, random in zip((one.null, 0.0), randoms, strict=True))
        for name, method in METHODS.items():
            found[name].append((method(one, null)[0].mean(), method(one, equal)[2].mean() / one.items))
    return {name: (float(np.mean([a for a, _ in r])), float(np.mean([b for _, b in r]))) for name, r in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="1,000 releases a cell, no judgement")
    short = parser.parse_args().short
    releases, started, missed = 1000 if short else 10_000, time.monotonic(), []
    rows = _error_rates(releases, missed)
    shares = _items(releases, missed)
    compared = _peers(releases)
    for line in missed:
        print(f"missed: {line}")
    document: dict[str, Any] = {"releases": releases, "cells": rows, "items": shares, "peers": compared}
    document |= {"missed": missed, "seconds": round(time.monotonic() - started)}
    print(json.dumps(document))
    return 1 if missed and not short else 0


def _error_rates(releases: int, missed: list[str]) -> list[dict[str, Any]]:
    print(f"{'cell: kind, rule, bound, rate, correlation':42} items  false  fixed | power  fixed   lost")
    rows = []
    for place, one in enumerate((*TYPICAL, *OTHERS)):
        null, good = (
            measure(one, truth, releases, 2 * place + n) for n, truth in enumerate((one.null, effect_of(one)))
        )
        lost = good.fixed - good.promoted
        print(
            f"{one.name:42} {one.items:5}  {null.promoted:.4f} {null.fixed:.4f} | {good.promoted:.3f}  {good.fixed:.3f}  {lost:+.3f}",
            flush=True,
        )
        if null.promoted > ALPHA:
            missed.append(f"{one.name}: {null.promoted:.4f} false promotions, at most {ALPHA}")
        if lost > MOST_POWER_LOST:
            missed.append(f"{one.name}: {lost:.3f} power lost, at most {MOST_POWER_LOST}")
        rows.append({"cell": " ".join(one.name.split()), "false": null.promoted, "power": good.promoted, "lost": lost})
    return rows


def _items(releases: int, missed: list[str]) -> dict[str, float]:
    print(
        f"\nmean items, as a share of the fixed-size test's ({min(c.items for c in TYPICAL)}-{max(c.items for c in TYPICAL)})"
    )
    found = {}
    for truth, most in MOST_ITEMS.items():
        each = [measure(one, truth, releases, 100 + place).items for place, one in enumerate(TYPICAL)]
        share = found[f"{truth:+.2f}"] = float(np.mean(each))
        print(
            f"true difference {truth:+.2f}: {share:.3f} (limit {most}); by cell {', '.join(f'{s:.3f}' for s in each)}",
            flush=True,
        )
        if share > most:
            missed.append(f"true difference {truth:+.2f}: {share:.3f} of the items, at most {most}")
    return found


def _peers(releases: int) -> dict[str, tuple[float, float]]:
    print(
        f"\n{'looked at after every block':22} false promotions   items of an equal candidate   ({TYPICAL[0].name.strip()})"
    )
    found = peers(TYPICAL[0], releases, 200)
    for name, (false, items) in found.items():
        print(f"{name:22} {false:.4f} {'within' if false <= ALPHA else 'above '} alpha   {items:.3f}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
