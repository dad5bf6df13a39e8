"""The live view of a rollout in the terminal: step, weights, observed shares, metrics, time left. It only reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.rollout.kept_steps import kept_steps, last_look
from tasks.rollout_evidence import rows

if TYPE_CHECKING:
    from serving.rollout.kept import Kept, Rollouts
    from serving.rollout.model import Step

REFRESH_SECONDS = 0.5
STYLES = {"go_on": "green", "hold": "yellow", "undo": "red"}


def watch(rollouts: Rollouts, console: Console) -> None:
    """Until the last rollout is over. Raises NoRollout."""
    with Live(view(rollouts.last()), console=console, auto_refresh=False) as live:
        while True:
            kept = rollouts.last()
            live.update(view(kept), refresh=True)
            if kept.state.over:
                return
            time.sleep(REFRESH_SECONDS)


def view(kept: Kept) -> RenderableType:
    """One screen."""
    state, steps = kept.state, kept_steps(kept)
    look = last_look(kept.folder) if state.phase == "watching" else None
    shown = look or (steps[-1] if steps else None)
    head = Text(
        f"{state.model}: {state.candidate} over {state.stable}, {state.phase}{' (paused)' if state.paused else ''}",
        style="bold",
    )
    weights = "  ".join(
        f"[{weight} %]" if state.rising and weight == state.weight else f"{weight} %" for weight in state.weights
    )
    lines = [
        head,
        *([Text(state.way)] if state.way else []),
        Text(f"step {state.step + 1} of {len(state.weights)}: {weights}{_left(kept)}"),
    ]
    lines += [Text(f"{one.weight} %: {one.decision}, {one.reason}", style=STYLES[one.decision]) for one in steps]
    if state.reason:
        lines.append(Text(state.reason))
    return Group(*lines, *([metrics(shown)] if shown else []))


def _left(kept: Kept) -> str:
    state = kept.state
    if state.phase != "watching":
        return ""
    return f"   {max(state.hold_limit_seconds - state.held_seconds, 0):.0f} s left to decide"


def metrics(step: Step) -> Table:
    """The evidence of one step as it stands."""
    share = step.split
    interval = f" [{share.low:.1%}, {share.high:.1%}]" if share and share.total else ""
    title = f"asked {step.weight} %, observed {step.observed_share:.1%}{interval}, {step.candidate.requests} and {step.stable.requests} requests"
    table = Table(
        "metric", "candidate", "stable", "interval", "evidence", "decision", title=title, title_justify="left"
    )
    for row in rows((step,)):
        said = Text(row.decision.replace("_", " "), style=STYLES[row.decision])
        table.add_row(row.metric, row.candidate, row.stable, row.interval, row.evidence, said)
    return table
