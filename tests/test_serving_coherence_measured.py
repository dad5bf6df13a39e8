"""A rollout's record as an engine's figures in the coherence check."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from serving.coherence.check import check
from serving.coherence.measured import RecordUnusable, figures_of
from serving.rollout.model import Finding, Rollout, SideStats, Step
from tasks.champion_report import NoChampion, champion_rollout
from tasks.exit_codes import code_of
from tasks.promotion.evidence import keep_document
from tests.fix_coherence import TODAY, changed, written

KEY = "c" * 64


def step(weight: int, first: tuple[float, ...], gap: float) -> Step:
    stable = SideStats("stable", 8, 0, (0.1,) * 8)
    gaps = Finding("inter_token", 0.01, gap, None, None, 0.5, 20, "go_on")
    return Step(weight, stable, SideStats("candidate", len(first), 0, first), "go_on", "", 1.0, findings=(gaps,))


def rollout(**changes: Any) -> Rollout:
    steps = (step(10, (0.2, 0.9, 0.3), 0.02), step(100, (0.25,), 0.05))
    made = Rollout(
        "local", "llm", "llm-1", "r@sha256:0", "", (0.1,), steps, "completed", "", (("load", 30.0), ("warm", 2.5))
    )
    return replace(made, **changes)


def test_the_worst_of_all_steps_bounds_the_engine() -> None:
    assert figures_of("llm", asdict(rollout())) == {
        "liftlock": "chain",
        "engines": {"llm": {"prefill": "0.900s", "inter_token": "0.0500s"}},
    }
    new_engine = figures_of("llm", asdict(rollout(strategy="pool")))
    assert new_engine["engines"]["llm"]["cold_start"] == "32.5s"


def test_a_record_without_times_is_refused() -> None:
    with pytest.raises(RecordUnusable, match=r"no first-token times \(0 steps"):
        figures_of("llm", asdict(rollout(steps=())))
    assert code_of(RecordUnusable()) == 2


def test_measured_figures_make_a_cut_answer_visible_and_the_files_own_go_before(tmp_path: Path) -> None:
    """0.1 s between tokens and 4,096 tokens of an answer are 409.6 s, and the inner route allows 350 s."""
    record = figures_of("llm", asdict(rollout(steps=(step(100, (0.5,), 0.1),))))
    unknown = changed(lambda handle: handle.chain["engines"].update({"*": {"max_tokens": 4096, "cold_start": "300s"}}))
    folder = tmp_path / "unknown"
    written(folder, unknown)
    assert check([folder], TODAY).findings == ()
    found = check([folder], TODAY, [("the release record of llm", record)]).findings
    assert "answer-cut" in {each.finding.rule for each in found}
    given = changed(lambda handle: handle.chain["engines"].update(llm={"inter_token": "0.01s", "prefill": "0.5s"}))
    written(tmp_path / "given", given)
    assert check([tmp_path / "given"], TODAY, [("the release record of llm", record)]).findings == ()


def test_the_champions_record_comes_from_its_evidence(registered: str, mlflow_client: MlflowClient) -> None:
    with pytest.raises(NoChampion, match=r"chain\.yaml"):
        champion_rollout(registered)
    run = mlflow_client.get_model_version(registered, "2").run_id
    kept = asdict(rollout(model=registered))
    keep_document(mlflow_client, run, KEY, "rollout.json", kept)
    mlflow_client.set_model_version_tag(registered, "2", "liftlock.evidence", KEY)
    mlflow_client.set_registered_model_alias(registered, "champion", "2")
    assert figures_of(registered, champion_rollout(registered))["engines"][registered]["prefill"] == "0.900s"
