"""What the rollout benches share: an engine and clients in processes of their own, and what the clients saw. Not a test."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Seen:
    """One request of a client: times in seconds by the monotonic clock; `fault` is empty where it was answered whole.

    `first` is the first token's time and `between` the mean between tokens, NaN where there was none.
    """

    start: float
    first: float
    between: float
    whole: float
    version: str
    fault: str


@contextmanager
def instant_engine() -> Iterator[str]:
    """Its address."""
    argv = [sys.executable, "-m", "tests.bench.instant_engine"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def capacity(port: int, model: str) -> float:
    """Requests a second that gateway, engine and clients answer together on this machine, as it is now."""
    argv = [sys.executable, "-m", "tests.bench.open_loop", "127.0.0.1", str(port), model, "most", "."]
    return float(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@contextmanager
def clients(port: int, model: str, rate: float, folder: Path) -> Iterator[list[Seen]]:
    """Requests at a fixed rate while the block runs; the list is filled at its end."""
    argv = [sys.executable, "-m", "tests.bench.open_loop", "127.0.0.1", str(port), model, str(rate), str(folder)]
    found: list[Seen] = []
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
            process.communicate("", timeout=120)
            found.extend(read(folder))
        finally:
            process.kill()


def read(folder: Path) -> list[Seen]:
    with (folder / "requests.csv").open() as file:
        return [
            Seen(float(start), float(first), float(between), float(whole), version, fault.strip("'"))
            for start, first, between, whole, version, fault in csv.reader(file)
        ]


def causes(access_log: Path) -> list[str]:
    """Why clients' requests failed, in the gateway's words, the most frequent first."""
    rows = [json.loads(line) for line in access_log.read_text().splitlines() if line.endswith("}")]
    failed = [row for row in rows if not row["purpose"] and (row["status"] >= 500 or row["flags"] not in (None, "-"))]
    said = Counter(f"{row['status']} {row['flags']} {row['details']} of {row['version']}" for row in failed)
    return [f"{count} times {cause}" for cause, count in said.most_common()]


def p95(times: NDArray[np.float64]) -> float:
    """In milliseconds, of the answers that have the time; NaN without any."""
    known = times[~np.isnan(times)]
    return float(np.quantile(known, 0.95)) * 1000 if len(known) else float("nan")


def firsts(seen: list[Seen], begin: float, end: float, slow: bool = True) -> NDArray[np.float64]:
    """First-token times of the requests that were answered whole and sent in between; without `slow`, of the other versions."""
    chosen = [one for one in seen if begin <= one.start < end and not one.fault]
    return np.array([one.first for one in chosen if slow or "slow" not in one.version])
