"""Draws docs/images/rollout-evidence.png: evidence against simulated canaries, request by request, and how soon rules undo.

`make picture-rollout`. Not a test. Draws are random by a fixed seed; the bets and the limit are the analysis's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

from serving.rollout.bets import bets_on_times
from tests.bench.bench_rollout_sim import FOUND, POLICY, USUAL
from tests.bench.rollout_draws import draw, fixed, kayenta, liftlock, looked_at

PATHS, ROLLOUTS, REQUESTS, SEED = 12, 1000, 200, 5


def main(target: Path) -> None:
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    paths, shares = figure.subplots(1, 2)
    _paths(paths)
    _shares(shares)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def _paths(axis: matplotlib.axes.Axes) -> None:
    for slower, colour, said in ((1.0, "tab:blue", "the same"), (FOUND, "tab:red", f"{FOUND} times slower")):
        draws = draw(USUAL, PATHS, REQUESTS, 0.5, np.random.default_rng(SEED), slower)
        wealth = bets_on_times(draws.values["first_token"], draws.canary, 0.5) / np.log(10)
        axis.plot(np.arange(1, REQUESTS + 1), wealth.T, color=colour, lw=0.8, alpha=0.7)
        axis.plot([], [], color=colour, label=said)
    axis.axhline(-np.log10(POLICY.each), color="black", ls="--", lw=1, label="undo")
    axis.set(
        title="evidence against the canary's first token",
        xlabel="requests, at 50 %",
        ylabel="odds, powers of ten",
        ylim=(-4, 6),
    )
    axis.legend(fontsize=8, loc="lower right")


def _shares(axis: matplotlib.axes.Axes) -> None:
    counts = np.arange(1, REQUESTS + 1)
    rules = {"Liftlock": None, "Mann-Whitney as in Kayenta": kayenta, "fixed threshold": fixed}
    colours = ("tab:green", "tab:orange", "tab:purple")
    for truth, slower, style in (("slow", FOUND, "-"), ("same", 1.0, ":")):
        draws = draw(USUAL, ROLLOUTS, REQUESTS + 40, 0.5, np.random.default_rng(SEED), slower)
        for (name, rule), colour in zip(rules.items(), colours, strict=True):
            ends = looked_at(draws, rule) if rule else liftlock(draws, POLICY.each, POLICY.max_error_rate)
            undone = [(ends <= count).mean() for count in counts]
            axis.plot(counts, undone, color=colour, ls=style, label=name if truth == "slow" else None)
    axis.axhline(POLICY.alpha, color="grey", lw=0.6)
    axis.set(title=f"undone: {FOUND} times slower (line), the same (dots)", xlabel="requests, at 50 %", ylim=(0, 1.02))
    axis.legend(fontsize=8, loc="center right")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
