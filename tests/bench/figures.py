"""The one form in which a bench ends: figures, each with its goal, spread and what was measured beside it, as one line of JSON.

`make bench` (run_benches.py) reads that line. A goal stands in the bench's source before the run; nothing here makes one up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NOISE = 0.10


def flags(doc: str | None, *names: str) -> argparse.Namespace:
    """The bench's arguments, each of them on or off; --help and one that is not known start nothing."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(name, action="store_true")
    return parser.parse_args()


@dataclass(frozen=True)
class Figure:
    """One number. `goal` is the worst value that meets it, None where none was set; `better` is the direction.

    `spread` is the lowest and highest of this run's repeats. `beside` holds peers and limits of the same run, in the same unit.
    `noise` is the share by which two runs on one machine may differ without a reason.
    """

    name: str
    value: float
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    goal: float | None = None
    spread: tuple[float, float] | None = None
    beside: dict[str, float] = field(default_factory=dict)
    noise: float = NOISE

    @property
    def met(self) -> bool:
        """False for a value that is not a number: what was not measured meets nothing."""
        if self.goal is None:
            return True
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


@dataclass(frozen=True)
class Ending:
    """What a bench's last line says."""

    bench: str
    figures: tuple[Figure, ...]
    short: bool = False

    @property
    def missed(self) -> tuple[str, ...]:
        return tuple(figure.name for figure in self.figures if not figure.met)


class NoEnding(ValueError):
    """The output of a bench does not end in its figures."""


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def end(
    bench: str, figures: Sequence[Figure], *, short: bool = False, judged: bool = True, details: object = None
) -> int:
    """Prints each missed goal and the line; gives the exit code. `judged` is False in a form too short to judge by."""
    ending = Ending(bench, tuple(figures), short)
    for figure in ending.figures:
        if not figure.met:
            word = "at most" if figure.better == "lower" else "at least"
            print(f"missed: {figure.name}: {figure.value:.4g} {figure.unit}, {word} {figure.goal:g}".replace(" ,", ","))
    said = {"bench": bench, "short": short, "figures": [_plain(figure) for figure in ending.figures]}
    said |= {"missed": list(ending.missed)} | ({} if details is None else {"details": details})
    print(json.dumps(said))
    return 1 if ending.missed and judged else 0


def _plain(figure: Figure) -> dict[str, Any]:
    found = asdict(figure)
    found["value"] = None if figure.value != figure.value else _short(figure.value)  # JSON has no NaN
    found["spread"] = figure.spread and [_short(value) for value in figure.spread]
    found["beside"] = {name: _short(value) for name, value in figure.beside.items()}
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def figure_of(plain: dict[str, Any]) -> Figure:
    """The way back from a line or from docs/figures.json."""
    value, spread = plain["value"], plain.get("spread")
    known = {name: plain[name] for name in Figure.__dataclass_fields__ if name in plain}
    known |= {"value": float("nan") if value is None else value, "spread": tuple(spread) if spread else None}
    return Figure(**known)


def read_ending(output: str) -> Ending:
    """From the last line of a bench's standard output. Raises NoEnding."""
    lines = output.strip().splitlines()
    try:
        said = json.loads(lines[-1])
        return Ending(said["bench"], tuple(figure_of(one) for one in said["figures"]), said["short"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        last = lines[-1][:120] if lines else "nothing"
        raise NoEnding(f"the last line is {last!r}; required is the line that figures.end prints") from error
