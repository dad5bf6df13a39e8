"""The plots of a gate's page: an interval a rule, and the path of a rule over its looks. Values in, inline SVG out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from evals.gate_policy import Look, RuleResult
from evals.gate_sentences import COUNTED, number, signed
from evals.gated import COMPARISONS
from tasks.report_svg import COLOURS, DASHES, Plot, draw, name_rows, span

VERDICT_COLOURS = {"passed": "good", "rejected": "bad", "inconclusive": "warn"}
HEADROOM = 0.7  # of the path's height, above and below: the first boundaries lie far outside


def plotted(rules: Sequence[RuleResult]) -> dict[str, tuple[RuleResult, ...]]:
    """Rules by what their axis measures; a rule that only counts has none."""
    compared = tuple(rule for rule in rules if rule.name in COMPARISONS)
    rates = tuple(rule for rule in rules if rule.name not in (*COMPARISONS, COUNTED))
    return {name: found for name, found in {"difference": compared, "score or pass rate": rates}.items() if found}


def intervals(name: str, of: str, rules: Sequence[RuleResult]) -> Plot:
    """One row a rule: the estimate in its interval, and what it is held against. `name` keeps ids apart."""

    def paint(axes: Any, width: int) -> None:
        for row, rule in enumerate(rules):
            colour = COLOURS[VERDICT_COLOURS[rule.verdict]]
            axes.plot([rule.low, rule.high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot([rule.estimate], [row], "o", color=colour, markersize=8)
            axes.plot(
                [rule.required] * 2, [row - 0.38, row + 0.38], color=COLOURS["ink"], linewidth=2, linestyle=DASHES
            )
        ends = [end for rule in rules for end in (rule.low, rule.high, rule.required)]
        axes.set_xlim(span([*ends, 0.0] if min(ends) < 0 else ends))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", linewidth=0.8)
        name_rows(axes, [rule.label.replace("_", " ") for rule in rules], width)
        axes.set_xlabel(of)

    show = signed if of == "difference" else number
    told = "; ".join(
        f"{rule.label} {show(rule.estimate)}, interval {show(rule.low)} to {show(rule.high)}, required {show(rule.required)}"
        for rule in rules
    )
    return draw(name, f"{of.capitalize()} by rule: {told}.", 58 + 34 * len(rules), paint)


def path(name: str, rule: RuleResult) -> Plot:
    """The estimate after each look, between the boundary it must cross to pass and the one it must cross to fail."""
    looks, last = rule.path, rule.path[-1]

    def paint(axes: Any, width: int) -> None:
        items = [look.items for look in looks]
        low, high = _heights(looks)
        passes, fails = [look.passes_above for look in looks], [look.fails_below for look in looks]
        axes.fill_between(
            items, passes, [max(high, *passes)] * len(items), color=COLOURS["good"], alpha=0.14, linewidth=0
        )
        axes.fill_between(items, fails, [min(low, *fails)] * len(items), color=COLOURS["bad"], alpha=0.14, linewidth=0)
        axes.plot(items, passes, color=COLOURS["good"], linewidth=1.6, linestyle=DASHES)
        axes.plot(items, fails, color=COLOURS["bad"], linewidth=1.6, linestyle=DASHES)
        axes.plot(items, [look.estimate for look in looks], color=COLOURS["candidate"], linewidth=2.2)
        axes.plot([last.items], [last.estimate], "o", color=COLOURS[VERDICT_COLOURS[rule.verdict]], markersize=8)
        axes.set_ylim(low, high)
        axes.set_xlim(0, max(rule.items_available, last.items) * 1.02)
        axes.grid(axis="y", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("items asked")
        axes.set_ylabel("difference" if rule.name in COMPARISONS else "mean score")

    told = (
        f"{rule.label} after {last.items} of {rule.items_available} items and {len(looks)} looks: {signed(last.estimate)}; "
        f"it passes above {signed(last.passes_above)} and fails below {signed(last.fails_below)}"
    )
    return draw(name, f"{told}.", 250, paint)


def _heights(looks: Sequence[Look]) -> tuple[float, float]:
    last = looks[-1]
    values = [look.estimate for look in looks] + [last.passes_above, last.fails_below]
    spread = max(max(values) - min(values), 0.05)
    return min(values) - HEADROOM * spread, max(values) + HEADROOM * spread
