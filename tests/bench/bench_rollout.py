"""Good and bad releases through the real vLLM, Envoy and rollout, under clients that send at a fixed mean rate. `make bench-rollout`.

Half of the releases use the strategy adapter (one engine), half pool (the candidate at an address of its own; here a proxy before
the same vLLM, for want of a second machine). Bad ones take twice as long, fail or cut 5 % of the answers, or have none with text.
The load is what the machine carries, measured first, times CLIENTS_SHARE, and REPLAYED_SHARE for the rollout's own requests, so that
nothing is overloaded. Whole it takes about 50 minutes where vLLM answers 4 requests a second. `ARGS=--short`: two good releases and four
bad ones with small steps, a quarter of the answers is bad; no judgement of times; about 5 minutes. `ARGS=--instant`: an instant
engine in place of vLLM. Ends with one line of JSON; exit code 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from serving.gateway.drain import drained
from serving.gateway.envoy import VERSION_HEADER
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.ask import ask
from serving.rollout.faulty import Fault, FaultyEngine
from serving.rollout.kept import Rollouts
from serving.rollout.local import LocalTarget
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from serving.rollout.traffic import Traffic
from tasks.drill import prompts, undo_seconds
from tests.bench.figures import Figure, end
from tests.bench.real_vllm import make_adapter, running_vllm
from tests.bench.rollout_load import Seen, capacity, causes, clients, instant_engine, p95
from tests.fix_envoy import running_envoy

MODEL, FIRST = "tickets", "tickets-0"
WEIGHTS = (50, 100)
BAD: tuple[Fault, ...] = ("slow", "errors", "cut", "empty")
HOLD_SECONDS, QUIET_SECONDS = 300, 180  # quiet: what a p95 is read from
FRESH = 20  # requests of a new version that must be nearly as fast as later ones
CLIENTS_SHARE, REPLAYED_SHARE = 0.4, 0.15  # of what the machine carries
LEAST_CARRIED = 1.0
MOST_CLIENTS, MOST_REPLAYED = 40.0, 40.0  # requests a second, where an instant engine would carry thousands
MOST_UNDO_SECONDS, MOST_P95, MOST_FRESH = 5.0, 1.2, 1.5


@dataclass(frozen=True)
class Size:
    """How large the bench is. `share` of a failing or cutting candidate's answers is hit."""

    good: int
    bad: int
    min_requests: int
    share: float
    quiet: float

    def fault_of(self, number: int) -> Fault:
        """Good ones first. Each fault meets both strategies, which take turns, where there are enough."""
        place = number - self.good - 1
        return "none" if place < 0 else BAD[(place // 2 if self.bad > len(BAD) else place) % len(BAD)]


@dataclass(frozen=True)
class Load:
    """Requests a second: what the machine carries, what clients ask, and what the rollout replays."""

    carried: float

    @property
    def clients(self) -> float:
        return min(CLIENTS_SHARE * self.carried, MOST_CLIENTS)

    @property
    def replayed(self) -> float:
        return min(REPLAYED_SHARE * self.carried, MOST_REPLAYED)


@dataclass(frozen=True)
class Cold:
    """Requests of adapters that nobody asked before, without warm-up and without load; milliseconds."""

    first_p95: float
    slowest: float
    later_p95: float


@dataclass(frozen=True)
class Ended:
    """One release of the bench; times by the monotonic clock."""

    fault: Fault
    strategy: str
    candidate: str
    stable: str
    outcome: str
    reason: str
    undo_seconds: float | None
    began: float
    ended: float

    @property
    def right(self) -> bool:
        return self.outcome == ("completed" if self.fault == "none" else "undone")


@dataclass(frozen=True)
class Bench:
    """`front` stands before the engine, so that an adapter on it can be made bad."""

    size: Size
    load: Load
    engine: str
    front: FaultyEngine
    target: LocalTarget
    url: str
    folder: Path

    def release(self, number: int) -> Ended:
        candidate, fault = f"tickets-{number}", self.size.fault_of(number)
        share = 1.0 if fault == "empty" else self.size.share
        if number % 2 == 0:
            with FaultyEngine(self.engine, candidate, candidate, fault, share, 2.0, healthy=4) as own:
                target = LocalTarget(self.target.gateway, candidate_engine=own.url)
                ended = self._run(candidate, fault, target, own.url)
                self._leave(own.url, candidate if ended.outcome == "completed" else None)
                return ended
        self.front.name = self.front.served = candidate
        self.front.fault, self.front.healthy, self.front.share = fault, 0, share
        self.front.asked.clear()
        return self._run(candidate, fault, self.target, self.engine)

    def _leave(self, engine: str, promoted: str | None) -> None:
        """A pool's proxy ends; its adapter is on the engine too. The first run of this bench cut twenty streams here."""
        if promoted:
            self.target.promote(MODEL, promoted)
        drained(self.target.gateway, [(MODEL, side, engine) for side in ("stable", "candidate")], 60)

    def _run(self, candidate: str, fault: Fault, target: LocalTarget, engine: str) -> Ended:
        stable, began = self.target.stable(MODEL), time.monotonic()
        policy = AnalysisPolicy(self.size.min_requests, 0.0, 1.2, steps=len(WEIGHTS))
        plan = Plan(MODEL, candidate, "bench", engine, prompts(), WEIGHTS, 4, policy, HOLD_SECONDS, 10, 10.0)
        traffic = Traffic(
            self.url, MODEL, prompts(), VERSION_HEADER, concurrency=1, rate=self.load.replayed,
            under_way=self.target.gateway.under_way,
        )  # fmt: skip
        rollouts = Rollouts(self.folder)
        done = roll_out(rollouts, plan, target, traffic, lambda _: None)
        strategy = "pool" if target.candidate_engine else "adapter"
        undo = undo_seconds(rollouts.last().events())
        took = time.monotonic() - began
        print(f"{strategy:8} {fault:7} {done.outcome:10} {took:6.1f} s  {done.reason}", flush=True)
        return Ended(fault, strategy, candidate, stable, done.outcome, done.reason, undo, began, began + took)


def without_warm_up(engine: str, names: list[str]) -> Cold:
    first, later = list[float](), list[float]()
    with httpx.Client(timeout=120) as client:
        for name, place in itertools.product(names, range(3 * FRESH)):
            asked = ask(client, engine, name, prompts()[place % len(prompts())], "").first_token_seconds or nan
            (first if place < FRESH else later).append(asked)
    return Cold(p95(np.array(first)), max(first) * 1000, p95(np.array(later)))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that engines and gateway end with it
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="few releases, small steps")
    parser.add_argument("--instant", action="store_true", help="an instant engine in place of vLLM")
    asked = parser.parse_args()
    size = Size(2, 4, 12, 0.25, 15) if asked.short else Size(10, 10, 24, 0.05, QUIET_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        return report(*run(size, Path(name), asked.instant), asked.short)


def run(size: Size, folder: Path, instant: bool) -> tuple[list[Ended], list[Seen], Cold, Load]:
    numbers, cold = range(1, size.good + size.bad + 1), ["cold-1", "cold-2"]
    for adapter in (FIRST, *(f"tickets-{number}" for number in numbers), *cold):
        make_adapter(folder / "adapters", adapter)
    engine: AbstractContextManager[str] = instant_engine() if instant else running_vllm(folder / "adapters")
    with engine as address, FaultyEngine(address, "", "", "none") as front:
        with running_envoy(folder / "gateway", front.url) as envoy:
            target, port = LocalTarget(envoy.gateway), urlsplit(envoy.url).port or 0
            target.promote(MODEL, FIRST)
            capacity(port, MODEL)  # its first requests pay for compiling and for the adapter
            load = Load(capacity(port, MODEL))
            if load.carried < LEAST_CARRIED:
                raise SystemExit(
                    f"bench-rollout: vLLM answers {load.carried:.1f} requests a second, required {LEAST_CARRIED}; run it on a quiet machine"
                )
            print(
                f"requests a second: {load.carried:.1f} carried, {load.clients:.1f} of clients, {load.replayed:.1f} replayed",
                flush=True,
            )
            bench = Bench(size, load, address, front, target, envoy.url, folder / "rollouts")
            with clients(port, MODEL, load.clients, folder) as seen:
                time.sleep(size.quiet)
                ended = [bench.release(number) for number in numbers]
            for cause in causes(folder / "gateway" / "access.log"):
                print(f"clients' failures: {cause}", flush=True)
        return ended, seen, without_warm_up(address, cold), load


def report(ended: list[Ended], seen: list[Seen], cold: Cold, load: Load, short: bool) -> int:
    good, bad = ([one for one in ended if (one.fault == "none") == fine] for fine in (True, False))
    made_to_fail = {one.candidate for one in bad}
    caused = [one for one in seen if one.fault and one.version not in made_to_fail]
    undos = [one.undo_seconds for one in ended if one.undo_seconds is not None]
    before, during = stables(ended, seen)
    fresh, steady = new_and_later(good, seen)
    figures = [
        Figure("good releases that did not reach 100 %", sum(not one.right for one in good), "", "lower", 0),
        Figure("bad releases that were not undone", sum(not one.right for one in bad), "", "lower", 0),
        Figure("requests failed by the release", len(caused), "", "lower", 0),
        Figure("slowest undo", max(undos, default=nan), "s", "lower", MOST_UNDO_SECONDS, noise=0.25),
        Figure("stable's p95 of the first token during, times before", during / before, "", "lower", MOST_P95),
        Figure("first token of a new version's first 20 requests, p95, times later", fresh / steady, "", "lower", MOST_FRESH,
               beside={"without warm-up": cold.first_p95 / cold.later_p95}),
        Figure("clients' requests in bad releases that met a bad version", met_bad(bad, seen), "", noise=0.5),
    ]  # fmt: skip
    if short:  # too few requests for times
        figures = [replace(one, goal=None) if " p95" in one.name else one for one in figures]
    rows = {
        "releases": len(ended), "requests": len(seen), **{name: round(value, 2) for name, value in asdict(load).items()},
        "stable_p95_before_ms": before, "stable_p95_during_ms": during, "first_20_p95_ms": fresh, "later_p95_ms": steady,
        **{f"without_warm_up_{name}_ms": value for name, value in asdict(cold).items()},
    }  # fmt: skip
    rows = {name: round(value, 2) if value == value else None for name, value in rows.items()}  # JSON has no NaN
    for name, value in [*rows.items(), *((one.name, f"{one.value:.4g} {one.unit}") for one in figures)]:
        print(f"{name:70} {value}")
    for one in caused[:5]:
        print(f"failed: {one.version or 'no version'}: {one.fault}")
    return end("rollout", figures, short=short, details=rows)


def stables(ended: list[Ended], seen: list[Seen]) -> tuple[float, float]:
    """p95 in ms of the first token of whoever was stable: before the first release, and during releases."""
    whole = [one for one in seen if not one.fault]
    before = [one.first for one in whole if one.start < ended[0].began]
    during = [
        one.first
        for one in whole
        if any(one.version == release.stable and release.began <= one.start < release.ended for release in ended)
    ]
    return p95(np.array(before)), p95(np.array(during))


def new_and_later(good: list[Ended], seen: list[Seen]) -> tuple[float, float]:
    """p95 in ms of the first FRESH requests of each good version, and of its later ones."""
    fresh, later = list[float](), list[float]()
    for release in good:
        times = [one.first for one in seen if one.version == release.candidate and not one.fault]
        fresh += times[:FRESH]
        later += times[FRESH:]
    return p95(np.array(fresh)), p95(np.array(later))


def met_bad(bad: list[Ended], seen: list[Seen]) -> float:
    """Of the clients' requests during bad releases, the share that the bad candidate answered, well or not."""
    names = {one.candidate for one in bad}
    inside = [one for one in seen if any(release.began <= one.start < release.ended for release in bad)]
    return sum(one.version in names for one in inside) / max(len(inside), 1)


if __name__ == "__main__":
    sys.exit(main())
