"""Error rates, power and items of the sequential gate on simulated releases. `make bench-gate`, `ARGS=--short` for a look.

Each cell draws releases whose true difference is known. The gate looks after every block of 8 items, and so do the rules that
people use in its place, on the same draws. statgate and evalsig are installed beside the project where a registry is reached,
and their arrays are held against the packages. Exit code 1 where a figure is missed. The short form has too few releases to
judge by and only warns.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench.figures import Figure, end, flags, spread_of
from tests.bench.gate_cells import ALPHA, Cell, cell, draw
from tests.bench.gate_methods import fixed, liftlock
from tests.bench.gate_packages import PINS, checked
from tests.bench.gate_peers import METHODS

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
CELLS = [*TYPICAL, *OTHERS]
COMPARED = [one for one in CELLS if one.rule != "floor"]  # the peers have no rule for a floor


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


def measure_peers(one: Cell, difference: float, releases: int, seed: int) -> dict[str, tuple[float, float]]:
    """(promoted, items) by rule, on the very draws of `measure`."""
    random, found = np.random.default_rng(seed), dict[str, list[tuple[float, float]]]()
    for _ in range(releases // BATCH):
        draws = draw(one, difference, BATCH, random)
        for name, method in METHODS.items():
            promoted, _, used = method(one, draws)
            found.setdefault(name, []).append((promoted.mean(), used.mean() / draws.single.shape[1]))
    return {name: (float(np.mean([a for a, _ in r])), float(np.mean([b for _, b in r]))) for name, r in found.items()}


def main() -> int:
    short = flags(__doc__, "--short").short
    releases, started = 1000 if short else 10_000, time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started here
    with ProcessPoolExecutor() as pool:
        rows = _error_rates(pool, releases)
        shares = _items(pool, releases)
        compared = _peers(pool, releases, rows)
    details = {"releases": releases, "cells": rows, "items": shares, "peers": compared}
    details |= {"seconds": round(time.monotonic() - started)}
    return end("gate", _figures(rows, shares, compared), short=short, judged=not short, details=details)


def _figures(rows: list[dict[str, Any]], shares: dict[float, float], compared: dict[str, Any]) -> list[Figure]:
    peers = {name: max(false for false, *_ in each) for name, each in compared.items() if name != "liftlock"}
    false, lost = ([float(row[key]) for row in rows] for key in ("false", "lost"))
    fewer = [
        name
        for name in peers
        if peers[name] <= ALPHA and _mean_items(compared, name) < _mean_items(compared, "liftlock")
    ]
    return [
        Figure(
            f"false promotions, worst of {len(rows)} cells", max(false), "", "lower", ALPHA, spread_of(false), peers
        ),
        Figure(
            "power lost to the fixed test, worst cell",
            max(lost),
            "",
            "lower",
            MOST_POWER_LOST,
            spread_of(lost),
            noise=0.25,
        ),
        *(
            Figure(f"items of the fixed test's, true difference {truth:+.2f}", share, "", "lower", MOST_ITEMS[truth])
            for truth, share in shares.items()
        ),
        Figure("rules within alpha that need fewer items", len(fewer), "", "lower", 0),
    ]


def _mean_items(compared: dict[str, Any], name: str) -> float:
    return float(np.mean([items for *_, items in compared[name]]))


def _error_rates(pool: ProcessPoolExecutor, releases: int) -> list[dict[str, Any]]:
    print(f"{'cell: kind, rule, bound, rate, correlation':42} items  false  fixed | power  fixed   lost")
    asked = [(one, truth, 2 * place + n) for place, one in enumerate(CELLS) for n, truth in enumerate(_truths(one))]
    found = [pool.submit(measure, one, truth, releases, seed) for one, truth, seed in asked]
    rows = []
    for place, one in enumerate(CELLS):
        null, good = found[2 * place].result(), found[2 * place + 1].result()
        lost = good.fixed - good.promoted
        print(
            f"{one.name:42} {one.items:5}  {null.promoted:.4f} {null.fixed:.4f} | {good.promoted:.3f}  {good.fixed:.3f}  {lost:+.4f}",
            flush=True,
        )
        rows.append(
            {"cell": _short(one), "false": null.promoted, "power": good.promoted, "lost": lost, "items": good.items}
        )
    return rows


def _truths(one: Cell) -> tuple[float, float]:
    return one.null, effect_of(one)


def _short(one: Cell) -> str:
    return " ".join(one.name.split())


def _items(pool: ProcessPoolExecutor, releases: int) -> dict[float, float]:
    fewest, most_items = min(c.items for c in TYPICAL), max(c.items for c in TYPICAL)
    print(f"\nmean items, as a share of the fixed-size test's ({fewest}-{most_items})")
    asked = {
        truth: [pool.submit(measure, one, truth, releases, 100 + place) for place, one in enumerate(TYPICAL)]
        for truth in MOST_ITEMS
    }
    found = {}
    for truth, most in MOST_ITEMS.items():
        each = [future.result().items for future in asked[truth]]
        share = found[truth] = float(np.mean(each))
        by_cell = ", ".join(f"{s:.3f}" for s in each)
        print(f"true difference {truth:+.2f}: {share:.3f} (limit {most}); by cell {by_cell}", flush=True)
    return found


def _peers(pool: ProcessPoolExecutor, releases: int, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each rule on every cell that has a comparison, on the draws of the first table."""
    places = [place for place, one in enumerate(CELLS) if one in COMPARED]
    nulls, goods = (
        [pool.submit(measure_peers, CELLS[p], _truths(CELLS[p])[n], releases, 2 * p + n) for p in places]
        for n in (0, 1)
    )
    own = [[rows[p]["false"], rows[p]["power"], rows[p]["items"]] for p in places]
    both = [(null.result(), good.result()) for null, good in zip(nulls, goods, strict=True)]
    found = {"liftlock": own} | {name: [[null[name][0], *good[name]] for null, good in both] for name in METHODS}
    _print_peers(found)
    return found


def _print_peers(found: dict[str, list[list[float]]]) -> None:
    cells = len(COMPARED)
    print(
        f"\n{f'looked at after every block, {cells} cells':34} worst false  cells above alpha   mean power   mean items"
    )
    for name, each in found.items():
        false, power, items = np.array(each).T
        print(
            f"{name:34} {false.max():11.4f}  {int((false > ALPHA).sum()):17}   {power.mean():10.3f}   {items.mean():10.3f}"
        )
    for name in PINS:
        print(checked(name, [COMPARED[0], COMPARED[10], *COMPARED[-3:]]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
