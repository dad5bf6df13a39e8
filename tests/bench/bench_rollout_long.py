"""50 promotions and 50 undos in a row under 100,000 requests with open streams; no request may fail. `make bench-rollout-long`.

The real Envoy and the real rollout (machine, analysis, drain) with an instant engine. Good candidates reach 100 %; the others are
slow, so that an undo fails no request by itself: SLOWNESS times stable's first token of that minute, because on a busy machine a fixed
delay may be within what is tolerated. Half of each have an engine of their own. Times are printed and not judged: see
bench_rollout.py. Clients ask at SHARE of what the machine carries, measured first, and at most at MOST_RATE: beyond what it carries
the gateway's own limit refuses requests, release or not. `ARGS=--short`: 4 cycles, no judgement. Ends with one line of JSON; exit
code 1 where a figure is missed.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import httpx

from serving.gateway.envoy import VERSION_HEADER
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tasks.drill import undo_seconds
from tests.bench.figures import Figure, end, flags
from tests.bench.rollout_load import Seen, capacity, causes, clients, firsts, instant_engine, p95
from tests.fix_envoy import running_envoy

MODEL, FIRST = "tickets", "tickets-0"
WEIGHTS = (50, 100)
POLICY = AnalysisPolicy(min_requests=8, max_error_rate=0.0, max_first_token_ratio=2.0, steps=len(WEIGHTS))
PROMPTS = [[{"role": "user", "content": f"ticket {number}"}] for number in range(8)]
REQUESTS, CYCLES = 100_000, 50
SLOWNESS, LEAST_SLOW_MS, PROBES = 5, 500, 20  # beyond 3.0: what is tolerated, times what must be found
SHARE, MOST_RATE = 0.3, 350.0  # the rollouts' own requests and analysis take the most of the rest
MOST_UNDO_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """One rollout of the bench."""

    good: bool
    outcome: str
    undo_seconds: float | None
    stable: str
    began: float
    ended: float


def cycles(envoy_url: str, target: LocalTarget, other: str, folder: Path, count: int) -> list[Ended]:
    """Good and slow candidates in turn; every second pair has an engine of its own."""
    found = []
    for number in range(1, 2 * count + 1):
        good = number % 2 == 1
        candidate = f"tickets-{number}" + ("" if good else f"-slow-{slow_milliseconds(envoy_url)}")
        engine = other if number % 4 in (3, 0) else None
        place = LocalTarget(target.gateway, candidate_engine=engine)
        stable, began = place.stable(MODEL), time.monotonic()
        plan = Plan(MODEL, candidate, "bench", engine or target.gateway.engine_url, PROMPTS, WEIGHTS, 2, POLICY, 60, 10)
        traffic = Traffic(envoy_url, MODEL, PROMPTS, VERSION_HEADER, rate=40)
        rollouts = Rollouts(folder)
        outcome = roll_out(rollouts, plan, place, traffic, lambda _: None).outcome
        found.append(Ended(good, outcome, undo_seconds(rollouts.last().events()), stable, began, time.monotonic()))
    return found


def slow_milliseconds(envoy_url: str) -> int:
    """What a slow candidate takes more, by what stable takes now under the clients' load."""
    with httpx.Client(timeout=60) as client:
        asked = (ask(client, envoy_url, MODEL, PROMPTS[0], VERSION_HEADER) for _ in range(PROBES))
        middle = median(one.first_token_seconds or 0.0 for one in asked)
    return max(LEAST_SLOW_MS, round(1000 * (SLOWNESS - 1) * middle))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that engines and gateway end with it
    short = flags(__doc__, "--short").short
    with (
        tempfile.TemporaryDirectory() as folder,
        instant_engine() as engine,
        instant_engine() as other,
        running_envoy(Path(folder) / "gateway", engine) as envoy,
    ):
        target = LocalTarget(envoy.gateway)
        target.promote(MODEL, FIRST)
        port = urlsplit(envoy.url).port or 0
        most = capacity(port, MODEL)
        rate = min(SHARE * most, MOST_RATE)
        print(f"the machine carries {most:.0f} requests a second; clients ask {rate:.0f} a second", flush=True)
        began = time.monotonic()
        with clients(port, MODEL, rate, Path(folder)) as seen:
            time.sleep(2 if short else 10)
            quiet = time.monotonic()
            ended = cycles(envoy.url, target, other, Path(folder) / "rollouts", 4 if short else CYCLES)
            while not short and (time.monotonic() - began) * rate < REQUESTS * 1.05:
                time.sleep(1)
        for cause in causes(Path(folder) / "gateway" / "access.log"):
            print(f"clients' failures: {cause}", flush=True)
        left_out = int((Path(folder) / "left-out.txt").read_text())
    return report(ended, seen, left_out, quiet, short)


def report(ended: list[Ended], seen: list[Seen], left_out: int, quiet: float, short: bool) -> int:
    faults = [one for one in seen if one.fault]
    undos = sorted(one.undo_seconds for one in ended if one.undo_seconds is not None)
    last = max(one.ended for one in ended)
    before, during = p95(firsts(seen, 0, quiet)), p95(firsts(seen, quiet, last, slow=False))
    wrong = [one for one in ended if one.outcome != ("completed" if one.good else "undone")]
    rows = {
        "requests": len(seen), "failed": len(faults), "left_out": left_out, "rollouts": len(ended), "ended_otherwise": len(wrong),
        "undo_p50_s": undos[len(undos) // 2] if undos else None, "undo_max_s": undos[-1] if undos else None,
        "stable_p95_before_ms": round(before, 2), "stable_p95_during_ms": round(during, 2), "ratio": round(during / before, 2),
        "met_a_slow_answer": round(sum("slow" in one.version for one in seen) / len(seen), 4),
    }  # fmt: skip
    for name, value in rows.items():
        print(f"{name:24} {value}")
    for one in faults[:5]:
        print(f"failed: {one.version or 'no version'}: {one.fault}")
    figures = [
        Figure("failed requests", len(faults), "", "lower", 0),
        Figure("rollouts that ended otherwise", len(wrong), "", "lower", 0),
        Figure("slowest undo", undos[-1] if undos else float("nan"), "s", "lower", MOST_UNDO_SECONDS, noise=0.25),
        Figure("stable's p95 during, times before", during / before, ""),
        Figure("requests", len(seen), "", "higher", None if short else REQUESTS),
    ]
    return end("rollout-long", figures, short=short, judged=not short, details=rows)


if __name__ == "__main__":
    sys.exit(main())
