"""The nested budgets of a chain, as SVG and for a terminal. Pure.

One bar a hop, outermost first: how long it waits for a silent engine (whole answers), and beside it how long what is behind it may take. A bar
that is not longer than the one below it is drawn in red, or marked with `!`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from serving.coherence.duration import shown
from serving.coherence.model import Chain
from serving.coherence.rules_time import waits
from serving.coherence.worst import silent_seconds

WIDTH, LEFT, ROW, BAR = 900, 300, 26, 16


@dataclass(frozen=True)
class Bar:
    """`seconds` None: no limit. `broken`: what is behind it may take as long or longer."""

    label: str
    seconds: float | None
    broken: bool


def bars(chain: Chain) -> list[Bar]:
    """Of every hop with a limit of its own or not, then the engine's longest answer where it is known."""
    mode = chain.modes[-1]
    made = []
    for place, hop in enumerate(chain.hops):
        own, behind = waits(hop.limits(mode)).value, silent_seconds(chain.hops[place + 1 :], mode)
        broken = own is not None and not math.isinf(behind) and own <= behind
        tries = int(hop.retries.value or 0) + 1
        whole = (
            None
            if own is None
            else silent_seconds(chain.hops[place:], mode)
            if tries > 1 and hop.kind != "client"
            else own
        )
        made.append(Bar(hop.name + (f" × {tries}" if tries > 1 else ""), whole, broken))
    bound = chain.engine.bound
    return [*made, *([Bar(f"{chain.engine.name}: longest answer", bound, False)] if bound is not None else [])]


def terminal(chain: Chain, columns: int = 50) -> list[str]:
    """Lines of text."""
    drawn = bars(chain)
    longest = max((each.seconds for each in drawn if each.seconds is not None), default=1.0)
    width = max(len(each.label) for each in drawn)
    lines = [f"{chain.alias} from {chain.client}"]
    for each in drawn:
        filled = "·" * columns if each.seconds is None else "█" * max(1, round(columns * each.seconds / longest))
        lines.append(f"  {each.label:<{width}} {'!' if each.broken else ' '} {filled} {shown(each.seconds)}")
    return lines


def svg(chains: Sequence[Chain]) -> str:
    """One picture; each chain to a scale of its own."""
    parts, top = [], 10
    for chain in chains:
        drawn = bars(chain)
        longest = max((each.seconds for each in drawn if each.seconds is not None), default=1.0)
        parts.append(_text(10, top + 14, f"{chain.alias} from {chain.client}", "bold"))
        top += ROW
        for each in drawn:
            width = (WIDTH - LEFT - 110) * (1.0 if each.seconds is None else each.seconds / longest)
            fill = "#c0392b" if each.broken else "#d0d4d9" if each.seconds is None else "#2e6da4"
            parts.append(_text(10, top + 13, each.label))
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{max(1.0, width):.1f}" height="{BAR}" fill="{fill}"/>')
            parts.append(_text(round(LEFT + width + 8), top + 13, shown(each.seconds)))
            top += ROW
        top += ROW // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" font-family="sans-serif" font-size="12">'
    note = "<title>How long each hop waits, outermost first; red: not longer than what is behind it</title>"
    return "\n".join([head, note, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>\n"])


def _text(x: int, y: int, said: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="#222">{escape(said)}</text>'
