"""One whole evaluation, lm-eval and promptfoo, against a scripted endpoint, and the gate on its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.evaluate import Side, Where, evaluate, evaluate_in_blocks
from evals.gate import GateDecision, GatePolicy, decide, plan_of_suite
from evals.lm_eval_runner import LmEvalFailed, Setting
from evals.report import EvalReport, from_json, to_json
from evals.suite import SuiteInvalid, load_items
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
            Side(suite, "candidate", "ab" * 32),
            DEV,
            Where(endpoint.base_url, MODEL, PROMPTFOO, tmp_path),
            Setting(limit=24),
            lambda stage, done, total: told.append((stage, done, total)),
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


POLICY = GatePolicy(rule="non_inferior", margin=0.05, block=16, seed=3, min_case_pass_rate=0.3)
COLUMNS = ("team", "length", "register")


class Asked:
    """Both sides in blocks against an endpoint that answers each side with one team, and what came of it."""

    def __init__(self, folder: Path, endpoint: ScriptedEndpoint) -> None:
        self.folder, self.endpoint, self.told = folder, endpoint, list[tuple[str, int, int]]()
        self.plan = plan_of_suite(load_items(DEV), COLUMNS, POLICY)

    def run(self, suite: Any = None) -> tuple[EvalReport, EvalReport, GateDecision]:
        suite = suite or replace(ticket_router(), promptfoo_yaml=None)
        sides = [Side(suite, name, name * 4, self.folder / f"{name}.jsonl") for name in ("candidate", "base")]
        new, old = evaluate_in_blocks(
            *sides,
            DEV,
            Where(self.endpoint.base_url, MODEL, PROMPTFOO, self.folder),
            Setting(),
            self.plan,
            self.judge,
            lambda *told: self.told.append(told),
        )
        return new, old, self.judge(new, old)

    def judge(self, new: EvalReport, old: EvalReport) -> GateDecision:
        return decide(new, old, replace(POLICY, min_case_pass_rate=0.0), plan=self.plan)


def right_for(names: tuple[str, ...]) -> Any:
    """The endpoint's models in `names` answer with the right team; the others with none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    team_of = {item["ticket"]: item["team"] for item in load_items(DEV)}

    def complete(model: str, ids: list[int]) -> str:
        text = tokenizer.decode(ids)
        return next((team for ticket, team in team_of.items() if ticket in text and model in names), "nobody")

    return complete


def items_asked(endpoint: ScriptedEndpoint) -> Counter[tuple[str, str]]:
    bodies = [body for path, body in endpoint.asked if path == "/v1/completions" and body["max_tokens"] != 1]
    return Counter((body["model"], str(body["prompt"])) for body in bodies)


def test_a_bad_candidate_is_rejected_after_a_few_blocks_and_is_asked_no_case(tmp_path: Path) -> None:
    with serving(ScriptedEndpoint(complete=right_for(("base",)))) as endpoint:
        asked = Asked(tmp_path, endpoint)
        new, old, decision = asked.run(ticket_router())
    assert decision.verdict == "rejected"
    assert (decision.items_used, decision.items_available) == (new.n, 128)
    assert new.n == old.n == 16 * round(new.n / 16) <= 32
    assert [item.id for item in new.items[:16]] != [item["id"] for item in load_items(DEV)[:16]]
    assert {item.id for item in new.items} == {name for block in asked.plan.blocks[: new.n // 16] for name in block}
    assert new.cases == old.cases == ()
    whole = decide(new, old, POLICY, plan=asked.plan)
    assert whole.verdict == "rejected"
    assert "No promptfoo case was asked: the items had decided." in whole.reasons
    assert sum(items_asked(endpoint).values()) == 2 * new.n
    assert asked.told[-1] == ("lm-eval", 2 * new.n, 2 * 128)
    assert all('"block":16' in report.fingerprint.sampling for report in (new, old))


def test_the_same_model_is_asked_to_the_end_and_nothing_twice(tmp_path: Path) -> None:
    """The engine dies in the third block; the second run asks only what is left."""
    complete, budget = right_for(("base", "candidate")), 70

    def dying(model: str, ids: list[int]) -> str:
        nonlocal budget
        budget -= len(ids) > 3  # the probe is none
        if budget < 0:
            raise RuntimeError("the engine is dead")
        return str(complete(model, ids))

    with serving(ScriptedEndpoint(complete=dying)) as endpoint:
        asked = Asked(tmp_path, endpoint)
        with pytest.raises(LmEvalFailed):
            asked.run()
        answered = sum(len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("candidate", "base"))
        assert answered == 70
        budget = 10_000
        endpoint.asked.clear()
        new, _, decision = asked.run()
        first = items_asked(endpoint)
        assert sum(first.values()) == 2 * new.n - answered
        assert max(first.values()) == 1
    assert decision.verdict in ("passed", "inconclusive")
    assert decision.verdict == "passed" or new.n == 128


def test_a_suite_that_no_rule_could_decide_on_is_refused_before_anything_is_asked() -> None:
    few = load_items(DEV)[:20]
    strict = replace(POLICY, floor=0.97)  # 0.97 ** 20 is 0.54: twenty right answers of twenty say little
    with pytest.raises(SuiteInvalid, match=r"can never show floor 0\.97"):
        plan_of_suite(few, COLUMNS, strict)
    with pytest.raises(SuiteInvalid, match="lacks the column 'document'"):
        plan_of_suite(few, ("document",), POLICY)
