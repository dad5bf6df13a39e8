"""Matplotlib's drawing as an inline SVG element of the report, in the page's colours and font; axes alike. Pure.

Each plot is drawn twice, for a wide page and for a phone; the page shows one of them. It draws nothing itself
(report_plots.py does), reads no file, and sets no state that outlives a call.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

WIDE, NARROW = 880, 344  # CSS pixels at which text has its own size
LABEL_CHARACTERS = {WIDE: 28, NARROW: 17}
DASHES = (0, (2, 1))

# CSS variable of the page → what Matplotlib draws in its place: all different, so that each can be found again.
COLOURS = {
    "ink": "#1c2126", "muted": "#5c6670", "line": "#d5dade", "paper": "#fefefe", "candidate": "#0b63b5",
    "stable": "#7a8590", "good": "#0a7a5c", "good-soft": "#a5d9c8", "bad": "#c2410c", "warn": "#a16207",
    "none": "#d9dde1", "part-1": "#0b5cad", "part-2": "#7c3aad", "part-3": "#c2570c", "part-4": "#b08900",
    "part-5": "#64707b", "part-6": "#0f8a7e", "part-7": "#a8ddd5", "part-8": "#e6e9ec",
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "liftlock",
    "text.parse_math": False,  # a dollar sign in a slice's name is a dollar sign
    "text.color": COLOURS["ink"],
    "font.size": 12.5,
    "axes.labelsize": 12,
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "xtick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["ink"],
}
Paint = Callable[[Any, int], None]  # draws on Matplotlib's axes for one of the two widths


@dataclass(frozen=True)
class Plot:
    """`label` says in words what the two SVG elements show."""

    label: str
    wide: str
    narrow: str


def draw(name: str, label: str, height: int, paint: Paint) -> Plot:
    """`name` keeps the ids of one page's plots apart; `height` in CSS pixels."""
    wide, narrow = (inline(_svg(width, height, paint), f"{name}-{width}", width) for width in (WIDE, NARROW))
    return Plot(label, wide, narrow)


def name_rows(axes: Any, names: Sequence[str], width: int) -> None:
    """Names beside rows 0, 1, …, with row 0 on top. Long names are cut."""
    axes.set_yticks(range(len(names)), [printable(name, LABEL_CHARACTERS[width]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that shows all values, with a margin of 4 %."""
    margin = 0.04 * (max(values) - min(values)) or 0.04
    return min(values) - margin, max(values) + margin


def time_ticks(least: float, most: float) -> tuple[float, ...]:
    """Round numbers between two positive ends of a log axis, at least two of them."""
    locator = LogLocator(base=10, subs=(1, 2, 5)) if most / least > 6 else MaxNLocator(5)
    return tuple(tick for tick in map(float, locator.tick_values(least, most)) if least <= tick <= most)


def printable(text: str, most: int) -> str:
    """At most `most` characters, with blanks for control characters, which XML does not know."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _svg(width: int, height: int, paint: Paint) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has fonts of its own
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure.subplots(), width)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def inline(document: str, name: str, width: int) -> str:
    """Matplotlib's SVG file without namespaces, metadata and style sheet; ids start with `name`."""
    root = ElementTree.fromstring(document)  # noqa: S314  # Matplotlib wrote it a moment ago
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    root[:] = [child for child in root if child.tag != "metadata" and child.find("style") is None]
    references = " ".join(element.get(key, "") for element in root.iter() for key in ("href", "clip-path"))
    used = set(re.findall(r"#(\w+)", references))
    for element in root.iter():
        _rename(element, name, used)
        _restyle(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "style": f"max-width:{width}px", "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")


def _rename(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Ids that something refers to get the name in front; the others go."""
    identifier = element.attrib.pop("id", None)
    if identifier in used:
        element.set("id", f"{name}-{identifier}")
    for key in ("href", "clip-path"):
        if key in element.attrib:
            element.set(key, element.attrib[key].replace("#", f"#{name}-"))


def _restyle(element: ElementTree.Element) -> None:
    style = re.sub(r"font-family: [^;]*;? ?", "", element.attrib.pop("style", ""))  # the page's font
    for variable, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{variable})")
    if style:
        element.set("style", style)
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    element.tail = None
    element.text = element.text if element.text and element.text.strip() else None
