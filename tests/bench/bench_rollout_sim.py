"""False undos, missed regressions and requests to find one, on simulated rollouts with a look after every request.

`make bench-rollout-sim`, `ARGS=--short` for a look. Ten metrics, two steps with a stable side (10 and 50 %), 10,000 rollouts a
cell. The last table holds Kayenta's rule and a fixed threshold on the same draws. Ends with one line of JSON; exit code 1 where
a figure is missed. The short form has too few rollouts to judge by and only warns.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.rollout.analysis import REGRESSION, AnalysisPolicy
from tests.bench.figures import Figure, end, flags, spread_of
from tests.bench.rollout_draws import EVENTS, Noise, draw, fixed, kayenta, liftlock, looked_at, passes

POLICY = AnalysisPolicy(min_requests=12, max_error_rate=EVENTS["errors"], max_first_token_ratio=1.0)
BATCH, REQUESTS = 500, 300
MOST_FALSE, MOST_MISSED, MOST_REQUESTS, FOUND = 0.05, 0.05, 50, 1.5
USUAL = Noise("sigma 0.25", 0.25)
NOISES = (
    Noise("sigma 0.15", 0.15),
    USUAL,
    Noise("sigma 0.40", 0.40),
    Noise("sigma 0.25, one in ten in a long tail", 0.25, tail=0.1),
    Noise("sigma 0.25, load that comes and goes", 0.25, drift=0.3),
)


def batches(rollouts: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, batch)) for batch in range(rollouts // BATCH)]


def undone_falsely(noise: Noise, rollouts: int, seed: int) -> float:
    """Share of rollouts of a candidate that is exactly what is tolerated, in both steps together."""
    hits = []
    for random in batches(rollouts, seed):
        ends = [
            liftlock(draw(noise, BATCH, REQUESTS, weight, random), POLICY.each, POLICY.max_error_rate)
            for weight in (0.1, 0.5)
        ]
        hits.append(((ends[0] <= REQUESTS) | (ends[1] <= REQUESTS)).mean())
    return float(np.mean(hits))


def found_after(noise: Noise, weight: float, rollouts: int, seed: int) -> NDArray[np.int64]:
    ends = [
        liftlock(draw(noise, BATCH, REQUESTS, weight, random, FOUND), POLICY.each, POLICY.max_error_rate)
        for random in batches(rollouts, seed)
    ]
    return np.concatenate(ends)


def passed_after(noise: Noise, weight: float, slower: float, rollouts: int, seed: int) -> NDArray[np.int64]:
    ends = [
        passes(draw(noise, BATCH, REQUESTS, weight, random, slower), REGRESSION, POLICY.beta, POLICY.min_requests)
        for random in batches(rollouts, seed)
    ]
    return np.concatenate(ends)


def main() -> int:
    short = flags(__doc__, "--short").short
    rollouts, began, missed = 1000 if short else 10_000, time.monotonic(), []
    rows = cells(rollouts, missed)
    compared = peers(rollouts)
    for line in missed:
        print(f"missed: {line}")
    details = {"rollouts": rollouts, "cells": rows, "peers": compared, "seconds": round(time.monotonic() - began)}
    return end("rollout-sim", _figures(rows, compared), short=short, judged=not short, details=details)


def _figures(rows: list[dict[str, Any]], compared: dict[str, dict[str, float]]) -> list[Figure]:
    false, missing = ([float(row[key]) for row in rows] for key in ("false", "missed"))
    usual = next(row for row in rows if row["noise"] == USUAL.name)
    peers = {name: row["false"] for name, row in compared.items() if name != "liftlock"}
    return [
        Figure("false undos, worst noise", max(false), "", "lower", MOST_FALSE, spread_of(false), peers),
        Figure(
            "missed regressions, worst noise", max(missing), "", "lower", MOST_MISSED, spread_of(missing), noise=0.25
        ),
        Figure("requests until found, usual noise", float(usual["found"]), "", "lower", MOST_REQUESTS),
    ]


def cells(rollouts: int, missed: list[str]) -> list[dict[str, Any]]:
    """One row for each kind of noise."""
    print(
        f"{'':40} false undo | first token {FOUND} times: requests until found | passes although {REGRESSION} times | good one passes"
    )
    print(
        f"{'times scatter with':40}            | at 50 %: median, p95   at 10 %: median |      at 50 %            | median, at 50 %"
    )
    rows = []
    for place, noise in enumerate(NOISES):
        false = undone_falsely(noise, rollouts, place)
        half, tenth = (found_after(noise, weight, rollouts, 100 + place) for weight in (0.5, 0.1))
        missing = float((passed_after(noise, 0.5, REGRESSION, rollouts, 200 + place) <= REQUESTS).mean())
        good = float(np.median(passed_after(noise, 0.5, 1.0, rollouts, 300 + place)))
        middle, late, slow = float(np.median(half)), float(np.quantile(half, 0.95)), float(np.median(tenth))
        print(
            f"{noise.name:40} {false:.4f}     | {middle:13.0f} {late:6.0f} {slow:17.0f}   | {missing:14.4f}          | {good:8.0f}",
            flush=True,
        )
        rows.append(
            {
                "noise": noise.name,
                "false": false,
                "found": middle,
                "found_p95": late,
                "found_at_10": slow,
                "missed": missing,
                "passes": good,
            }
        )
        if false > MOST_FALSE:
            missed.append(f"{noise.name}: {false:.4f} false undos, at most {MOST_FALSE}")
        if missing > MOST_MISSED:
            missed.append(f"{noise.name}: {missing:.4f} missed regressions, at most {MOST_MISSED}")
        if noise is USUAL and middle >= MOST_REQUESTS:
            missed.append(f"{noise.name}: found after {middle:.0f} requests, required below {MOST_REQUESTS}")
    return rows


def peers(rollouts: int) -> dict[str, dict[str, float]]:
    """Undone although nothing differs, and undone because the first token is slower, at 50 %, up to 200 requests."""
    rules = {"Mann-Whitney as Kayenta": kayenta, "fixed threshold": fixed}
    found: dict[str, dict[str, float]] = {}
    ends: dict[str, dict[str, list[NDArray[np.int64]]]] = {
        name: {"same": [], "slow": []} for name in ("liftlock", *rules)
    }
    for random in batches(rollouts, 400):
        for truth, slower in (("same", 1.0), ("slow", FOUND)):
            draws = draw(USUAL, BATCH, 240, 0.5, random, slower)
            ends["liftlock"][truth].append(liftlock(draws, POLICY.each, POLICY.max_error_rate))
            for name, rule in rules.items():
                ends[name][truth].append(looked_at(draws, rule))
    print(f"\n{'at 50 %, up to 200 requests, ' + USUAL.name:44} false undo   found   median requests")
    for name, each in ends.items():
        same, slow = np.concatenate(each["same"]), np.concatenate(each["slow"])
        row = {
            "false": float((same <= 200).mean()),
            "found": float((slow <= 200).mean()),
            "median": float(np.median(slow)),
        }
        found[name] = row
        print(f"{name:44} {row['false']:.4f}       {row['found']:.4f}  {row['median']:8.0f}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
