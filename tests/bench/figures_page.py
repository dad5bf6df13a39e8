"""docs/figures.json and docs/figures.md: what each bench reached when it last ran, on which machine, and what got worse since.

A run in the short form never takes the place of one in full. A bench that did not run keeps its row and its date.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tasks.processor import read_cpuinfo
from tasks.whole_file import write_whole
from tests.bench.figures import Ending, Figure, _plain, figure_of

Rows = dict[str, dict[str, Any]]
HEAD = """# Figures

This page has the figures that the benches printed when they last ran: what was reached, the spread of the repeats, the goal, and
what was measured beside it in the same run. `make bench` runs the benches and writes this page; it is not written by hand.
`make bench BENCH="modelcar gate"` runs two of them, and `ARGS=--short` runs the short forms, which are marked and judge less.
A bench that did not run keeps its row and its date. A figure that is worse than here, on the same machine and by more than the
spread and the noise together, is told by `make bench`, which then ends with exit code 1.

How the time grows with the work, drawn by `make bench-growth ARGS=--plot`, and adapters on one engine, by `make bench-adapters ARGS=--plot`:

![Seconds over size for items, bytes, manifests, passages and versions](images/growth.png)

![Tokens a second and first token over the number of adapters](images/adapters.png)

"""


def machine() -> str:
    """Processor with its family and model, for clouds give two kinds one name; cores and memory."""
    said = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", read_cpuinfo(), re.MULTILINE))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kind = f" (family {said['cpu family']}, model {said['model']})" if {"cpu family", "model"} <= said.keys() else ""
    return f"{said.get('model name', 'unknown processor')}{kind}, {os.cpu_count()} cores, {memory:.0f} GiB"


def row_of(ending: Ending, command: str, on: str, date: str, commit: str, seconds: float) -> dict[str, Any]:
    return {
        "command": command, "short": ending.short, "machine": on, "date": date, "commit": commit, "seconds": round(seconds),
        "figures": [_plain(figure) for figure in ending.figures],
    }  # fmt: skip


def key_of(bench: str, short: bool) -> str:
    return f"{bench} (short)" if short else bench


def read(file: Path) -> Rows:
    """Empty where the file is not there."""
    return json.loads(file.read_text()) if file.exists() else {}


def write(rows: Rows, data: Path, page: Path, reasons: dict[str, str]) -> None:
    """Both files whole or not at all, each."""
    write_whole(data, json.dumps(rows, indent=1, sort_keys=True) + "\n")
    write_whole(page, render(rows, reasons))


def worse(old: Figure, new: Figure) -> float | None:
    """By what share `new` is worse than `old`, where it is so beyond both spreads and the noise; None where it is not.

    A figure that was 0 and is not any more is worse by infinity.
    """
    sign = 1 if new.better == "lower" else -1
    best_now = min(sign * value for value in (*(new.spread or ()), new.value))
    worst_then = max(sign * value for value in (*(old.spread or ()), old.value))
    if not best_now > worst_then + abs(worst_then) * max(old.noise, new.noise):
        return None
    return abs(new.value - old.value) / abs(old.value) if old.value else float("inf")


def regressions(before: Rows, after: Rows) -> list[str]:
    """A sentence for each figure that is worse than the committed one; rows of another machine are left out."""
    found = []
    for key, now in after.items():
        then = before.get(key)
        if then is None or then["machine"] != now["machine"] or then == now:
            continue
        earlier = {one["name"]: figure_of(one) for one in then["figures"]}
        for new in map(figure_of, now["figures"]):
            old = earlier.get(new.name)
            if old is not None and (by := worse(old, new)) is not None:
                found.append(
                    f"{key}: {new.name}: {shown(new.value, new.unit)}, was {shown(old.value, old.unit)} on {then['date']} ({by:.0%} worse)"
                )
    return found


def shown(value: float, unit: str) -> str:
    if value != value:
        return "not measured"
    text = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".strip()


def render(rows: Rows, reasons: dict[str, str]) -> str:
    kept = {key: row for key, row in rows.items() if not row["short"] or key.removesuffix(" (short)") not in rows}
    return HEAD + _missed(kept, reasons) + "".join(_section(key, row) for key, row in sorted(kept.items()))


def _missed(rows: Rows, reasons: dict[str, str]) -> str:
    found = [
        (key, figure)
        for key, row in sorted(rows.items())
        for figure in map(figure_of, row["figures"])
        if not figure.met
    ]
    lines = [
        f"- **{key}, {figure.name}**: {shown(figure.value, figure.unit)}, goal {_goal(figure)}. "
        + reasons.get(f"{key.removesuffix(' (short)')}: {figure.name}", "No reason is written yet.")
        for key, figure in found
    ]
    return "## Missed goals\n\n" + ("\n".join(lines) if lines else "None of the figures below.") + "\n\n"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return "none set"
    return f"at {'most' if figure.better == 'lower' else 'least'} {shown(figure.goal, figure.unit)}"


def _section(key: str, row: dict[str, Any]) -> str:
    text = f"## {key}\n\n`{row['command']}`, {row['seconds']} s, {row['date']}, {row['machine']}\n\n"
    text += "| figure | reached | spread | goal | met | beside it |\n|---|--:|---|---|---|---|\n"
    return text + "".join(_line(figure_of(one)) for one in row["figures"]) + "\n"


def _line(figure: Figure) -> str:
    spread = " to ".join(shown(value, figure.unit) for value in figure.spread) if figure.spread else ""
    beside = "; ".join(f"{name} {shown(value, figure.unit)}" for name, value in sorted(figure.beside.items()))
    met = "" if figure.goal is None else "yes" if figure.met else "**no**"
    return f"| {figure.name} | {shown(figure.value, figure.unit)} | {spread} | {_goal(figure)} | {met} | {beside} |\n"
