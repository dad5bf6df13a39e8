"""One whole evaluation, lm-eval and promptfoo, against a scripted endpoint, and the gate on its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.cases import placed_cases
from evals.evaluate import Side, Tools, evaluate, evaluate_in_blocks
from evals.gate import GateDecision, GatePolicy, decide, plan_of_suite
from evals.lm_eval_runner import LmEvalFailed, Setting
from evals.report import EvalReport, from_json, to_json
from evals.suite import Suite, SuiteInvalid, load_items
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
            Side(suite, "candidate", "ab" * 32, endpoint.base_url, MODEL),
            DEV,
            Tools(PROMPTFOO, tmp_path),
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
        at = (self.endpoint.base_url, MODEL)
        sides = [Side(suite, name, name * 4, *at, self.folder / f"{name}.jsonl") for name in ("candidate", "base")]
        new, old = evaluate_in_blocks(
            *sides,
            DEV,
            Tools(PROMPTFOO, self.folder),
            Setting(),
            self.plan,
            POLICY,
            lambda *told: self.told.append(told),
        )
        return new, old, decide(new, old, replace(POLICY, min_case_pass_rate=0.0), plan=self.plan)


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


def sampling(folder: Path) -> Suite:
    """The suite with drawn answers and without cases."""
    task = folder / "task.yaml"
    greedy = "do_sample: false\n  temperature: 0"
    text = ticket_router().task_yaml.read_text()
    assert greedy in text
    task.write_text(text.replace(greedy, "do_sample: true\n  temperature: 0.7"))
    return replace(ticket_router(), task_yaml=task, promptfoo_yaml=None)


def test_where_answers_are_drawn_each_item_is_asked_again_with_another_seed(tmp_path: Path) -> None:
    """Every item is right at its first time and wrong at its second, but for the sales team's, which are always wrong."""
    complete, seen = right_for(("candidate",)), Counter[str]()

    def draw(model: str, ids: list[int]) -> str:
        seen[str(ids)] += 1
        said = str(complete(model, ids))
        return said if seen[str(ids)] == 1 and said != "sales" else "nobody"

    with serving(ScriptedEndpoint(complete=draw)) as endpoint:
        side = Side(sampling(tmp_path), "candidate", "ab" * 32, endpoint.base_url, MODEL, tmp_path / "kept.jsonl")
        tools = Tools(PROMPTFOO, tmp_path)
        told: list[tuple[str, int, int]] = []
        report = evaluate(
            side, DEV, tools, Setting(limit=24, repeats=2, cluster="length"), lambda *one: told.append(one)
        )
        bodies = [body for path, body in endpoint.asked if body.get("temperature") == 0.7]
        endpoint.asked.clear()
        again = evaluate(side, DEV, tools, Setting(limit=24, repeats=2, cluster="length"), lambda *_: None)
        assert items_asked(endpoint).total() == 0
    assert Counter(body["seed"] for body in bodies) == {1234: 24, 1235: 24}
    assert told[-1] == ("lm-eval", 48, 48)
    items = {item["id"]: item for item in load_items(DEV)}
    for item in report.items:
        lost = items[item.id]["team"] == "sales"
        assert (item.score, item.scores) == ((0.0, (0.0, 0.0)) if lost else (0.5, (1.0, 0.0)))
        assert item.cluster == items[item.id]["length"]
    assert again.sha256 == report.sha256
    assert '"repeats":2' in report.fingerprint.sampling
    decision = decide(report, report, GatePolicy(rule="non_inferior", margin=0.1, min_items=2, min_case_pass_rate=0))
    assert decision.always_failing == tuple(item.id for item in report.items if items[item.id]["team"] == "sales") != ()


def test_repeats_of_a_greedy_task_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with (
        serving(ScriptedEndpoint()) as endpoint,
        pytest.raises(SuiteInvalid, match=r"answers greedily and gate\.repeats is 2"),
    ):
        evaluate(
            Side(ticket_router(), "candidate", "ab" * 32, endpoint.base_url, MODEL), DEV, Tools(PROMPTFOO, tmp_path),
            Setting(repeats=2), lambda *_: None,
        )  # fmt: skip
    assert endpoint.asked == []


def test_cases_end_at_the_block_that_refuses_and_are_kept(tmp_path: Path) -> None:
    """The items are the same on both sides; the candidate's chat is worse."""

    def chat(model: str, messages: list[Json]) -> str:
        return "nobody" if model == "candidate" else "billing"

    with serving(ScriptedEndpoint(complete=right_for(("base", "candidate")), chat=chat)) as endpoint:
        asked = Asked(tmp_path, endpoint)
        suite = ticket_router()
        new, old, _ = asked.run(suite)
        chats = sum(path == "/v1/chat/completions" for path, _ in endpoint.asked)
        assert len(new.cases) == len(old.cases) == 16 < len(placed_cases(suite))
        assert {case.id for case in new.cases} == {case.id for case in old.cases}
        assert chats == 32
        again, _, _ = asked.run(suite)
        assert sum(path == "/v1/chat/completions" for path, _ in endpoint.asked) == chats
    assert again.cases == new.cases
    assert decide(new, old, POLICY, plan=asked.plan).verdict == "rejected"


def test_a_suite_that_no_rule_could_decide_on_is_refused_before_anything_is_asked() -> None:
    few = load_items(DEV)[:20]
    strict = replace(POLICY, floor=0.97)  # 0.97 ** 20 is 0.54: twenty right answers of twenty say little
    with pytest.raises(SuiteInvalid, match=r"can never show floor 0\.97"):
        plan_of_suite(few, COLUMNS, strict)
    with pytest.raises(SuiteInvalid, match="lacks the column 'document'"):
        plan_of_suite(few, ("document",), POLICY)
