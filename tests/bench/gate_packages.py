"""statgate and evalsig themselves, beside the arrays that stand for them in the bench. Not a test.

They are installed without their dependencies (the project has these already) into a folder of their own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.gate_cells import ALPHA, Cell, Draws, draw
from tests.bench.gate_peers import METHODS, looks_of

Array = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[2] / ".toolchain" / "peers-gate"
PINS = {"statgate": "0.1.1", "evalsig": "0.1.2"}
CHECKED = 40  # releases of a cell


def checked(name: str, cells: Sequence[Cell]) -> str:
    """A sentence: whether the array gives the package's own verdicts, or why that cannot be said."""
    why = _install(name)
    if why:
        return f"{name} {PINS[name]} did not install ({why}): its formula was not held against the package"
    draws = [(one, draw(one, truth, CHECKED, np.random.default_rng(7))) for one in cells for truth in (one.null, 0.0)]
    others = sum(differs_from(name, one, drawn, CHECKED) for one, drawn in draws)
    return f"{name} {PINS[name]}: {others} of {CHECKED * len(draws)} verdicts differ from the package's own"


def _install(name: str) -> str:
    """ "" where it can be imported."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    if find_spec(name):
        return ""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER), f"{name}=={PINS[name]}"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    invalidate_caches()
    if done.returncode == 0 and find_spec(name):
        return ""
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def differs_from(name: str, cell: Cell, draws: Draws, releases: int) -> int:
    """On how many of the first releases the package itself gives another verdict, or needs another number of items."""
    own = {"statgate": _run_statgate, "evalsig": _run_evalsig}[name]
    promoted, rejected, used = METHODS[name](cell, draws)
    ours = zip(promoted.tolist(), rejected.tolist(), used.tolist(), strict=True)
    return sum(
        own(cell, draws.single[place], draws) != told for place, told in zip(range(releases), ours, strict=False)
    )


def _run_statgate(cell: Cell, single: Array, draws: Draws) -> tuple[bool, bool, float]:
    from statgate.core.sequential import MixtureSPRT  # type: ignore[import-not-found]

    test, before = MixtureSPRT(theta0=cell.null, alpha=ALPHA), 0
    for end in looks_of(draws, 1).tolist():
        told = test.update(single[before:end])
        before = end
        if told.decided:
            return told.direction > 0, told.direction < 0, float(end)
    return False, False, float(len(single))


def _run_evalsig(cell: Cell, single: Array, draws: Draws) -> tuple[bool, bool, float]:
    from evalsig.inference.sequential import sequential_gate  # type: ignore[import-not-found]

    told = sequential_gate(single - cell.null, alpha=ALPHA, alternative="two-sided")
    return told.stopped and told.delta > 0, told.stopped and told.delta < 0, float(told.n_pairs)
