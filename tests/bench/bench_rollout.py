"""Good and bad releases through the real vLLM, Envoy and rollout, under clients that send at a fixed rate. `make bench-rollout`.

Half of the releases use the strategy adapter (one engine), half pool (the candidate at an address of its own; here a proxy before
the same vLLM, for want of a second machine). Bad ones take twice as long, fail or cut 5 % of the answers, or empty a quarter.
`ARGS=--short`: few releases, small steps, a quarter of the answers is bad, no judgement of times. `ARGS=--instant`: an instant engine
in place of vLLM. Ends with one line of JSON; exit code 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

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
from tests.bench.rollout_load import Seen, clients, firsts, instant_engine, p95
from tests.bench.rollout_vllm import make_adapter, running_vllm
from tests.fix_envoy import running_envoy

MODEL, FIRST = "tickets", "tickets-0"
WEIGHTS = (50, 100)
BAD: tuple[Fault, ...] = ("slow", "errors", "cut", "empty")
EMPTY_SHARE = 0.25  # what is worse than stable by a few answers in a hundred is not settled within the bench's hold
HOLD_SECONDS = 120
FRESH = 20  # requests of a new version that must be nearly as fast as later ones
MOST_UNDO_SECONDS, MOST_P95, MOST_FRESH = 5.0, 1.2, 1.5


@dataclass(frozen=True)
class Size:
    """How large the bench is."""

    releases: int
    min_requests: int
    share: float
    rate: float


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
    adapter_cold: tuple[tuple[str, float], ...]

    @property
    def right(self) -> bool:
        return self.outcome == ("completed" if self.fault == "none" else "undone")


@dataclass(frozen=True)
class Bench:
    """`front` stands before the engine, so that an adapter on it can be made bad."""

    size: Size
    engine: str
    front: FaultyEngine
    target: LocalTarget
    url: str
    folder: Path

    def release(self, number: int, fault: Fault) -> Ended:
        candidate, pool = f"tickets-{number}", number % 2 == 0
        stable, began = self.target.stable(MODEL), time.monotonic()
        if pool:
            with FaultyEngine(self.engine, candidate, candidate, fault, self.share(fault), 2.0, healthy=4) as own:
                return self._run(
                    candidate, stable, fault, LocalTarget(self.target.gateway, candidate_engine=own.url), own.url, began
                )
        self.front.name = self.front.served = candidate
        self.front.fault, self.front.healthy, self.front.share = fault, 0, self.share(fault)
        self.front.asked.clear()
        return self._run(candidate, stable, fault, self.target, self.engine, began)

    def share(self, fault: Fault) -> float:
        return EMPTY_SHARE if fault == "empty" else self.size.share

    def _run(self, candidate: str, stable: str, fault: Fault, target: LocalTarget, engine: str, began: float) -> Ended:
        policy = AnalysisPolicy(self.size.min_requests, 0.0, 1.2, steps=len(WEIGHTS))
        plan = Plan(MODEL, candidate, "bench", engine, prompts(), WEIGHTS, 4, policy, HOLD_SECONDS, 10, 10.0)
        rollouts = Rollouts(self.folder)
        traffic = Traffic(self.url, MODEL, prompts(), VERSION_HEADER)
        done = roll_out(rollouts, plan, target, traffic, lambda _: None)
        if (
            done.outcome == "completed" and target.candidate_engine
        ):  # its proxy ends here; the adapter is on the engine too
            self.target.promote(MODEL, candidate)
        seconds = undo_seconds(rollouts.last().events())
        strategy = "pool" if target.candidate_engine else "adapter"
        ended = Ended(
            fault,
            strategy,
            candidate,
            stable,
            done.outcome,
            done.reason,
            seconds,
            began,
            time.monotonic(),
            done.cold_start,
        )
        print(f"{ended.strategy:8} {fault:7} {done.outcome:10} {ended.ended - began:6.1f} s  {done.reason}", flush=True)
        return ended

    def _drain(self, engine: str) -> None:
        """An engine may go only when its streams have ended: the first run of this bench cut twenty of them."""
        deadline = time.monotonic() + 60
        while self.target.gateway.running(MODEL, "stable", engine) and time.monotonic() < deadline:
            time.sleep(0.1)


def without_warm_up(engine: str, names: list[str]) -> tuple[float, float]:
    """(p95 in ms of the first requests of adapters that nobody asked before, the slowest in ms)."""
    with httpx.Client(timeout=120) as client:
        found = [
            ask(client, engine, name, prompts()[place], "").first_token_seconds or 0.0
            for name in names
            for place in range(FRESH)
        ]
    return p95(np.array(found)), max(found) * 1000


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that engines and gateway end with it
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="few releases, small steps")
    parser.add_argument("--instant", action="store_true", help="an instant engine in place of vLLM")
    asked = parser.parse_args()
    size = Size(2, 12, 0.25, 2.0) if asked.short else Size(10, 60, 0.05, 40.0 if asked.instant else 2.0)
    numbers = range(1, (3 if asked.short else 2) * size.releases + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for adapter in (FIRST, *(f"tickets-{number}" for number in numbers), "cold-1", "cold-2"):
            make_adapter(folder / "adapters", adapter)
        engine: AbstractContextManager[str] = instant_engine() if asked.instant else running_vllm(folder / "adapters")
        with engine as address, FaultyEngine(address, "", "", "none") as front:
            with running_envoy(folder / "gateway", front.url) as envoy:
                bench = Bench(size, address, front, LocalTarget(envoy.gateway), envoy.url, folder / "rollouts")
                bench.target.promote(MODEL, FIRST)
                with clients(urlsplit(envoy.url).port or 0, MODEL, size.rate, folder) as seen:
                    time.sleep(5 if asked.short else 15)
                    ended = [bench.release(number, fault_of(number, size)) for number in numbers]
            cold = without_warm_up(address, ["cold-1", "cold-2"])
    return report(ended, seen, cold, asked.short)


def fault_of(number: int, size: Size) -> Fault:
    return "none" if number <= size.releases else BAD[(number - size.releases - 1) // 2 % len(BAD)]


def report(ended: list[Ended], seen: list[Seen], cold: tuple[float, float], short: bool) -> int:
    caused = [
        one
        for one in seen
        if one.fault and one.version not in {release.candidate for release in ended if release.fault != "none"}
    ]
    undos = [one.undo_seconds for one in ended if one.undo_seconds is not None]
    stables = {one.stable for one in ended}
    before = p95(firsts(seen, 0, ended[0].began))
    during = p95(
        np.array(
            [one.first for one in seen if not one.fault and one.start >= ended[0].began and one.version in stables]
        )
    )
    fresh, steady = new_and_later(ended, seen)
    rows = {
        "requests": len(seen), "failed_by_release": len(caused),
        "good_completed": f"{sum(one.right for one in ended if one.fault == 'none')} of {sum(one.fault == 'none' for one in ended)}",
        "bad_undone": f"{sum(one.right for one in ended if one.fault != 'none')} of {sum(one.fault != 'none' for one in ended)}",
        "undo_max_s": max(undos, default=None), "clients_that_met_a_bad_answer": round(met_bad(ended, seen), 4),
        "stable_p95_before_ms": round(before, 1), "stable_p95_during_ms": round(during, 1), "ratio": round(during / before, 2),
        "first_20_p95_ms": round(fresh, 1), "later_p95_ms": round(steady, 1), "fresh_ratio": round(fresh / steady, 2),
        "without_warm_up_p95_ms": round(cold[0], 1), "without_warm_up_slowest_ms": round(cold[1], 1),
    }  # fmt: skip
    for name, value in rows.items():
        print(f"{name:30} {value}")
    for one in caused[:5]:
        print(f"failed: {one.version or 'no version'}: {one.fault}")
    missed = [f"{one.strategy} {one.fault}: {one.outcome}: {one.reason}" for one in ended if not one.right]
    missed += [f"{len(caused)} requests failed by the release"] if caused else []
    missed += (
        [f"undo took {max(undos)} s, at most {MOST_UNDO_SECONDS}"] if max(undos, default=0) > MOST_UNDO_SECONDS else []
    )
    missed += [f"stable's p95 {during / before:.2f} times, at most {MOST_P95}"] if during > MOST_P95 * before else []
    missed += (
        [f"a new version's p95 {fresh / steady:.2f} times, at most {MOST_FRESH}"] if fresh > MOST_FRESH * steady else []
    )
    for line in missed:
        print(f"missed: {line}")
    figures = [
        Figure("releases that ended otherwise", sum(not one.right for one in ended), "", "lower", 0),
        Figure("requests failed by the release", len(caused), "", "lower", 0),
        Figure("slowest undo", max(undos, default=float("nan")), "s", "lower", MOST_UNDO_SECONDS, noise=0.25),
        Figure("stable's p95 during, times before", during / before, "", "lower", MOST_P95),
        Figure("a new version's first p95, times later", fresh / steady, "", "lower", MOST_FRESH),
        Figure("clients that met a bad answer", float(rows["clients_that_met_a_bad_answer"]), "", noise=0.5),
    ]
    details = {name: None if value != value else value for name, value in rows.items()}  # JSON has no NaN
    return end("rollout", figures, short=short, judged=not short, details=details)


def new_and_later(ended: list[Ended], seen: list[Seen]) -> tuple[float, float]:
    """p95 in ms of the first FRESH requests of each good version, and of its later ones."""
    fresh, later = [], []
    for release in ended:
        times = [
            one.first for one in seen if one.version == release.candidate and release.fault == "none" and not one.fault
        ]
        fresh += times[:FRESH]
        later += times[FRESH:]
    return p95(np.array(fresh)), p95(np.array(later))


def met_bad(ended: list[Ended], seen: list[Seen]) -> float:
    """Of the clients' requests during bad releases, the share that the bad candidate answered."""
    bad = {one.candidate for one in ended if one.fault != "none"}
    windows = [(one.began, one.ended) for one in ended if one.fault != "none"]
    inside = [one for one in seen if any(begin <= one.start < end for begin, end in windows)]
    return sum(one.version in bad for one in inside) / max(len(inside), 1)


if __name__ == "__main__":
    sys.exit(main())
