"""Drift of the champion: asked again, on the items of its release and on fresh ones, against its own release report.

The old items are paired with the release's results, so that only a change of the answers counts. Fresh items have no pair:
their lower bound is held against the release's score less the margin, which is taken as known.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from evals.fingerprint import asked
from evals.gate import GatePolicy, Verdict, decide
from evals.gated import GatedChange, GatedSuite, diff_cases, diff_items, used_ids
from evals.report import EvalReport, restricted
from tasks.whole_file import write_whole

DRIFTS = ("engine", "engine_version", "version of lm_eval", "version of transformers", "version of promptfoo")
BLOCKS = ("sampling.block", "sampling.seed")  # of the release's run; the champion is asked the same items at once
LOWEST_FLOOR, HIGHEST_FLOOR = 0.001, 0.999


def judge_drift(
    name: str, release: EvalReport, now: EvalReport, fresh: EvalReport | None, policy: GatePolicy
) -> GatedChange:
    """Passed: no drift of more than the margin. Rejected: shown to be worse. `policy` is the release's own.

    What may differ from the release's run is what drifts: engine and tool versions. All else raises FingerprintMismatch.
    """
    within = replace(policy, rule="non_inferior", margin=policy.margin or 0.05, block=0)
    now = restricted(now, [item.id for item in release.items], policy.metric)
    decision = decide(now, release, within, under_test=(*DRIFTS, *BLOCKS))
    items = diff_items(now, release, used_ids(now, decision, within), {})
    old = GatedSuite(
        f"{name} on the release's items", (), policy.metric, decision, items, diff_cases(now, release), True,
        _moved(release, now),
    )  # fmt: skip
    suites = (old,) if fresh is None else (old, _fresh(name, release, fresh, within))
    return GatedChange("", "", suites)


def _fresh(name: str, release: EvalReport, fresh: EvalReport, policy: GatePolicy) -> GatedSuite:
    """The floor alone: the comparison is of the report with itself and always holds."""
    score = dict(release.metrics)[policy.metric]
    floor = min(HIGHEST_FLOOR, max(LOWEST_FLOOR, score - policy.margin))
    alone = replace(policy, floor=floor, slices=(), block=0, min_case_pass_rate=0.0)
    decision = decide(fresh, fresh, alone)
    items = diff_items(fresh, fresh, used_ids(fresh, decision, alone), {})
    note = f"The release scored {score:.3f}; fresh items may be at most {policy.margin:g} below it."
    return GatedSuite(f"{name} on fresh items", (), policy.metric, decision, items, notes=(note,))


def _moved(release: EvalReport, now: EvalReport) -> tuple[str, ...]:
    then, today = asked(release), asked(now)
    moved = [f"{key} {then[key]} → {today[key]}" for key in DRIFTS if key in then and then[key] != today.get(key)]
    return (f"Since the release: {'; '.join(moved)}.",) if moved else ()


def verdict_changed(state: Path, name: str, verdict: Verdict) -> str | None:
    """Note this run's verdict; the one before where it was another, "none" for a first run, None where nothing changed."""
    file = state / "drift" / f"{name}.json"
    before = json.loads(file.read_text())["verdict"] if file.exists() else "none"
    if before == verdict:
        return None
    write_whole(file, json.dumps({"verdict": verdict}))
    return str(before)
