"""One whole evaluation, lm-eval and promptfoo, against a scripted endpoint, and the gate on its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evals.evaluate import evaluate
from evals.gate import GatePolicy, decide
from evals.report import from_json, to_json
from evals.suite import load_items
from tests.fix_endpoint import Json, ScriptedEndpoint, serving
from tests.fix_reports import ticket_router

ROOT = Path(__file__).parent.parent
MODEL = ROOT / ".toolchain" / "models" / "SmolLM2-135M-Instruct"
DEV = ROOT / "evals" / "ticket_router" / "data" / "dev.jsonl"
PROMPTFOO = ROOT / ".toolchain" / "promptfoo" / "node_modules" / ".bin" / "promptfoo"

pytestmark = pytest.mark.skipif(not (PROMPTFOO.is_file() and MODEL.is_dir()), reason="make setup has not run")


def test_one_report_holds_items_and_cases_and_can_be_judged(tmp_path: Path) -> None:
    suite = ticket_router()
    told: list[tuple[str, int, int]] = []

    def chat(model: str, messages: list[Json]) -> str:
        return "billing"

    with serving(ScriptedEndpoint(complete=lambda model, ids: "billing", chat=chat)) as endpoint:
        report = evaluate(
            suite,
            DEV,
            base_url=endpoint.base_url,
            model="candidate",
            model_sha256="ab" * 32,
            tokenizer=MODEL,
            promptfoo=PROMPTFOO,
            workdir=tmp_path,
            limit=24,
            progress=lambda stage, done, total: told.append((stage, done, total)),
        )
    asked = load_items(DEV)[:24]
    assert [item.id for item in report.items] == [item["id"] for item in asked]
    assert [item.score for item in report.items] == [float(item["team"] == "billing") for item in asked]
    assert {case.passed for case in report.cases if case.id.startswith("refusal-")} == {True}
    assert (report.assertions.errored, report.fingerprint.model_sha256) == (0, "ab" * 32)
    assert [name for name, _ in report.tool_versions] == ["lm_eval", "transformers", "promptfoo"]
    assert ("lm-eval", 24, 24) in told
    assert told[-1] == ("promptfoo", len(report.cases), len(report.cases))
    assert from_json(to_json(report)) == report

    worse = replace(
        report,
        metrics=(("exact_match,none", 0.0),),
        items=tuple(replace(item, score=0.0) for item in report.items),
        fingerprint=replace(report.fingerprint, model="base"),
    )
    decision = decide(report, worse, GatePolicy(min_items=2, min_case_pass_rate=0.3))
    assert (decision.candidate, decision.baseline, decision.items_used) == ("candidate", "base", 24)
    assert decision.item_flips.newly_passing == tuple(item["id"] for item in asked if item["team"] == "billing")
