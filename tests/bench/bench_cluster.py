"""`make bench-cluster`: 500 random clusters and releases; the renderer's verdict against API server, quota, Kueue and scheduler.

`ARGS=--short` for a look at 40. Each case gets nodes, a namespace and a training Job of its own on one real control plane; what the
renderer says from what it reads is held against what becomes of the pods. Ends with one line of JSON; exit code 1 where they
disagree once, or where rendering or applying is slower than asked. Without the control plane it says so and ends with 0.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from kubernetes import config

from tests.bench.cluster_cases import Case, cases
from tests.bench.cluster_run import Outcome, run, told
from tests.bench.figures import Figure, end
from tests.fix_cluster import running_cluster
from tests.fix_controllers import start_kserve, start_kueue

CASES, SHORT = 500, 40
MOST_RENDER, MOST_APPLY = 0.1, 2.0  # seconds, 95th percentile


def measure(count: int, seed: int) -> list[tuple[Case, Outcome]]:
    found: list[tuple[Case, Outcome]] = []
    with tempfile.TemporaryDirectory() as place, running_cluster(Path(place), nodes=0) as cluster:
        for folder in ("gateway-api", "gateway-api-inference-extension", "prometheus-operator"):
            cluster.define(folder)
        start_kserve(cluster)
        start_kueue(cluster)
        api = config.new_client_from_config(str(cluster.kubeconfig))

        @hypothesis.seed(seed)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def each(case: Case) -> None:
            found.append((case, run(cluster, api, case)))
            _progress(len(found), count, *found[-1])

        each()
    return found


def _progress(done: int, count: int, case: Case, outcome: Outcome) -> None:
    if not outcome.agrees:
        print(
            f"DISAGREE {case}\n  said {outcome.answer.reasons or 'schedulable'}\n  saw {set(outcome.kinds) or 'it runs'}",
            flush=True,
        )
    elif done % 20 == 0:
        print(f"{done} of {count}", file=sys.stderr, flush=True)


def report(found: list[tuple[Case, Outcome]]) -> dict[str, float]:
    outcomes = [outcome for _, outcome in found]
    seen = Counter("runs" if each.runs else "+".join(sorted(each.kinds)) for each in outcomes)
    said = Counter(
        "schedulable" if each.answer.schedulable else "+".join(sorted(told(each.answer))) for each in outcomes
    )
    print(f"{'said':32}{'cases':>7}      {'seen':32}{'cases':>7}")
    for left, right in zip(said.most_common(12), seen.most_common(12), strict=False):
        print(f"{left[0]:32}{left[1]:7}      {right[0]:32}{right[1]:7}")
    render, apply = ([getattr(each, f"{name}_seconds") for each in outcomes] for name in ("render", "apply"))
    return {
        "cases": len(outcomes),
        "disagreements": sum(not each.agrees for each in outcomes),
        "uncertain": sum(not each.answer.certain for each in outcomes),
        "uncertain_that_ran": sum(not each.answer.certain and each.runs for each in outcomes),
        "schedulable": seen["runs"],
        "pods": sum(each.pods for each in outcomes),
        "render_p95_seconds": round(statistics.quantiles(render, n=20)[-1], 4),
        "apply_p95_seconds": round(statistics.quantiles(apply, n=20)[-1], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    try:
        found = measure(SHORT if chosen.short else CASES, chosen.seed)
    except pytest.skip.Exception as error:
        print(f"skipped: {error}")
        return 0
    said = report(found)
    figures = [
        Figure(f"disagreements in {said['cases']} cases", said["disagreements"], "", "lower", 0),
        Figure("render, p95", said["render_p95_seconds"], "s", "lower", MOST_RENDER, noise=0.25),
        Figure("apply, p95", said["apply_p95_seconds"], "s", "lower", MOST_APPLY, noise=0.25),
    ]
    judged = not chosen.short or bool(said["disagreements"])
    return end("cluster", figures, short=chosen.short, judged=judged, details=said)


if __name__ == "__main__":
    sys.exit(main())
