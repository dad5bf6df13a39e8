"""Draws docs/images/eval-gate-paths.png: three simulated candidates on their way to a verdict. `make picture-gate`.

Not a test. The scores are random by a fixed seed; the boundaries are the gate's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

from evals.gate_blocks import Placed, plan_blocks
from evals.gate_items import Pair, judge_pairs
from evals.gate_policy import RuleResult
from evals.gate_rules import Rule
from tests.bench.gate_cells import flips

ITEMS, RATE, CORRELATION, MARGIN, SEED = 832, 0.8, 0.4, 0.05, 3
TRUTHS = ((0.0, "as good as the baseline"), (0.03, "3 points better"), (-0.10, "10 points worse"))


def path_of(truth: float) -> RuleResult:
    better, worse = flips(RATE, CORRELATION, truth)
    uniform = np.random.default_rng(SEED).random(ITEMS)
    scores = [(1.0, 0.0) if u < better else (0.0, 1.0) if u > 1 - worse else (1.0, 1.0) for u in uniform.tolist()]
    pairs = [Pair(f"i{n}", new, old, f"i{n}") for n, (new, old) in enumerate(scores)]
    plan = plan_blocks([Placed(pair.id, pair.cluster, ()) for pair in pairs], 8, SEED)
    return judge_pairs(pairs, [Rule("non_inferior", MARGIN)], 0.05, plan).results[0]


def main(target: Path) -> None:
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, (truth, said) in zip(figure.subplots(1, len(TRUTHS), sharey=True), TRUTHS, strict=True):
        result = path_of(truth)
        items = [look.items for look in result.path]
        axis.plot(items, [look.passes_above for look in result.path], color="tab:green", ls="--", label="passes above")
        axis.plot(items, [look.fails_below for look in result.path], color="tab:red", ls="--", label="rejected below")
        axis.plot(items, [look.estimate for look in result.path], color="black", label="candidate − baseline")
        axis.set(
            title=f"{said}:\n{result.verdict} after {result.items_used} of {ITEMS}", xlabel="items", ylim=(-0.45, 0.45)
        )
        axis.axhline(-MARGIN, color="grey", lw=0.6)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(target, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
