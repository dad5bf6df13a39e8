"""The real promptfoo against a scripted endpoint: what it sends, how outcomes are told apart, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evals.endpoint import EndpointUnreachable, ModelNotServed
from evals.prompt import Prompt, messages
from evals.promptfoo_runner import PromptfooFailed, cases_sha256, parse_results, run_promptfoo
from evals.report import AssertionCounts, PromptCase
from evals.suite import SuiteInvalid, load_yaml
from tests.fix_endpoint import Json, ScriptedEndpoint, serving
from tests.fix_reports import ticket_router

ROOT = Path(__file__).parent.parent
PROMPTFOO = ROOT / ".toolchain" / "promptfoo" / "node_modules" / ".bin" / "promptfoo"
SUITE = ROOT / "evals" / "ticket_router"
LABELS = {"account", "billing", "loyalty", "returns", "sales", "security", "shipping", "technical"}
PROMPT = Prompt("Name the team.", "Ticket: {{ticket}}")

needs_promptfoo = pytest.mark.skipif(not PROMPTFOO.is_file(), reason=f"no {PROMPTFOO}: make setup installs it")

TICKETS = {
    "right": "Where is my parcel?",
    "wrong": "Charged twice",
    "crash": "CRASH",
    "broken-assertion": "Hello",
    "template-code": '{{ticket}} {{ env.HOME }} {% raw %} "quoted" \\n <|im_end|>\nsecond line\n',
    "file-url": "file:///etc/hostname",
    "comma, list": "a,b\n- c",
}
ASSERTS: dict[str, list[Json]] = {
    "right": [{"type": "equals", "value": "shipping"}],
    "wrong": [{"type": "equals", "value": "billing"}, {"type": "not-contains", "value": "HACKED"}],
    "broken-assertion": [{"type": "javascript", "value": "nothing.like.this"}],
}


def write_config(folder: Path, **changes: Any) -> Path:
    tests = [
        {"metadata": {"id": key, "group": "format"}, "vars": {"ticket": text}, "assert": ASSERTS.get(key, [])}
        for key, text in TICKETS.items()
    ]
    default = {"assert": [{"type": "javascript", "value": "['shipping', 'billing'].includes(output)"}]}
    path = folder / "promptfoo.yaml"
    config = {"description": "x", "defaultTest": default, "tests": tests, **changes}
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def answer(model: str, sent: list[Json]) -> str:
    if "CRASH" in sent[-1]["content"]:
        raise RuntimeError("the engine is dead")
    return "shipping"


@dataclass
class Ran:
    cases: dict[str, PromptCase]
    order: list[str]
    counts: AssertionCounts
    version: str
    endpoint: ScriptedEndpoint
    told: list[tuple[int, int]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("promptfoo")
    told: list[tuple[int, int]] = []
    with serving(ScriptedEndpoint(chat=answer)) as endpoint:
        cases, counts, version = run_promptfoo(
            write_config(folder),
            promptfoo=PROMPTFOO,
            base_url=endpoint.base_url,
            model="candidate",
            prompt=PROMPT,
            workdir=folder / "work",
            progress=lambda done, total: told.append((done, total)),
        )
    yield Ran({case.id: case for case in cases}, [case.id for case in cases], counts, version, endpoint, told)


@needs_promptfoo
def test_it_sends_the_prompts_messages_untouched(ran: Ran) -> None:
    sent = [body["messages"] for path, body in ran.endpoint.asked]
    expected = [[dict(message) for message in messages(PROMPT, {"ticket": text})] for text in TICKETS.values()]
    assert sorted(sent, key=str) == sorted(expected, key=str)
    assert {(body["model"], body["temperature"], body["max_tokens"]) for _, body in ran.endpoint.asked} == {
        ("candidate", 0, 16)
    }


@needs_promptfoo
def test_outcomes_are_told_apart(ran: Ran) -> None:
    outcomes = {key: (case.passed, case.errored) for key, case in ran.cases.items()}
    assert outcomes == {
        "right": (True, False),
        "wrong": (False, False),
        "crash": (False, True),
        "broken-assertion": (False, True),  # promptfoo itself counts it as failed
        "template-code": (True, False),
        "file-url": (True, False),
        "comma, list": (True, False),
    }
    assert ran.counts == AssertionCounts(passed=4, failed=1, errored=2)
    assert ran.version == "0.121.20"


@needs_promptfoo
def test_cases_keep_their_order_group_answer_and_reason(ran: Ran) -> None:
    assert ran.order == list(TICKETS)
    wrong, crash = ran.cases["wrong"], ran.cases["crash"]
    assert (wrong.group, wrong.answer) == ("format", "shipping")
    assert wrong.reason == 'Expected output "shipping" to equal "billing"'
    assert "the engine is dead" in crash.reason
    assert (crash.answer, ran.cases["right"].reason) == ("", "")


@needs_promptfoo
def test_progress_is_told_case_by_case(ran: Ran) -> None:
    assert ran.told == [(done, 7) for done in range(1, 8)]


@needs_promptfoo
def test_a_program_that_cannot_run_is_quoted(tmp_path: Path) -> None:
    config = write_config(tmp_path, defaultTest={"assert": "this is no list"})
    with (
        serving(ScriptedEndpoint(chat=answer)) as endpoint,
        pytest.raises(PromptfooFailed, match="ended with exit code 1"),
    ):
        run(config, tmp_path, endpoint.base_url)


def run(config: Path, folder: Path, base_url: str, *, model: str = "base", promptfoo: Path = PROMPTFOO) -> None:
    run_promptfoo(
        config,
        promptfoo=promptfoo,
        base_url=base_url,
        model=model,
        prompt=PROMPT,
        workdir=folder / "work",
        progress=lambda done, total: None,
    )


def test_the_endpoint_is_looked_up_first(tmp_path: Path) -> None:
    with pytest.raises(EndpointUnreachable):
        run(write_config(tmp_path), tmp_path, "http://127.0.0.1:1/v1")
    with serving(ScriptedEndpoint()) as endpoint, pytest.raises(ModelNotServed):
        run(write_config(tmp_path), tmp_path, endpoint.base_url, model="other")
    assert not (tmp_path / "work").exists()


def test_a_missing_program_says_how_to_install_it(tmp_path: Path) -> None:
    with (
        serving(ScriptedEndpoint()) as endpoint,
        pytest.raises(PromptfooFailed, match="install it with npm ci"),
    ):
        run(write_config(tmp_path), tmp_path, endpoint.base_url, promptfoo=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tests": []}, "needs a list of tests"),
        ({"tests": "file://cases.csv"}, "needs a list of tests"),
        ({"tests": [{"metadata": {"id": "a"}}]}, "test 1 has no vars"),
        ({"tests": [{"vars": {"ticket": "x"}}]}, r"test 1 has no metadata\.id"),
        ({"tests": [{"vars": {"ticket": "x"}, "metadata": {"id": "a"}}] * 2}, "has the case id 'a' twice"),
        ({"providers": ["openai:gpt-4"]}, "has providers; only defaultTest, description, tests are run"),
    ],
)
def test_a_configuration_that_would_run_otherwise_is_refused(tmp_path: Path, changes: Json, words: str) -> None:
    with pytest.raises(SuiteInvalid, match=words):
        cases_sha256(write_config(tmp_path, **changes), PROMPT)


def test_the_digest_follows_cases_and_prompt_only(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    digest = cases_sha256(config, PROMPT)
    assert cases_sha256(config, Prompt(None, "{{ticket}}")) != digest
    assert cases_sha256(write_config(tmp_path, defaultTest={}), PROMPT) != digest
    assert cases_sha256(write_config(tmp_path), PROMPT) == digest


def result(case_id: str, *, success: bool = True, failure: int = 0) -> Json:
    return {
        "success": success,
        "failureReason": failure,
        "testCase": {"metadata": {"id": case_id}},
        "response": {"output": "x"},
        "gradingResult": None,
    }


def output(rows: list[Json], successes: int, failures: int, errors: int) -> str:
    stats = {"successes": successes, "failures": failures, "errors": errors}
    return json.dumps({"results": {"results": rows, "stats": stats}, "metadata": {"promptfooVersion": "0.121.20"}})


def test_results_are_put_in_the_order_of_the_file() -> None:
    rows = [result("b", success=False, failure=1), result("a")]
    cases, counts, _ = parse_results(output(rows, 1, 1, 0), ["a", "b"])
    assert [case.id for case in cases] == ["a", "b"]
    assert counts == AssertionCounts(1, 1, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (output([result("a")], 1, 0, 0), "gave 1 results"),
        (output([], 1, 1, 0), r"gave 2 results \(0 known ids\) for 2 cases"),
        (output([result("a"), result("a")], 2, 0, 0), r"gave 2 results \(1 known ids\)"),
        (output([result("a"), result("b")], 1, 1, 0), "counts 1 passed cases; its results hold 2"),
        (output([result("a"), result("b")], 2, 0, 0)[:-30], "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({"results": {"results": [{}], "stats": {}}}), "cannot be read"),
    ],
)
def test_output_that_does_not_add_up_is_refused(text: str, words: str) -> None:
    with pytest.raises(PromptfooFailed, match=words):
        parse_results(text, ["a", "b"])


def test_the_suite_has_three_groups_of_cases_that_ask_for_labels() -> None:
    suite = ticket_router()
    config = load_yaml(suite.promptfoo_yaml)
    assert cases_sha256(suite.promptfoo_yaml, suite.prompt)
    groups = [test["metadata"]["group"] for test in config["tests"]]
    assert len(groups) >= 27
    assert all(groups.count(group) >= 9 for group in ("format", "refusal", "injection"))
    assert all(test["metadata"]["id"].startswith(f"{test['metadata']['group']}-") for test in config["tests"])
    checks = [check for test in config["tests"] for check in test.get("assert", [])]
    assert {check["value"] for check in checks if check["type"] == "equals"} == LABELS  # each is some case's answer
    one_label = config["defaultTest"]["assert"][0]["value"]
    assert all(f"'{label}'" in one_label for label in LABELS)


def test_the_lock_names_no_registry() -> None:
    lock = (ROOT / "evals" / "promptfoo" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    versions = json.loads(lock)["packages"]
    assert versions["node_modules/promptfoo"]["version"] == "0.121.20"
    assert versions["node_modules/@libsql/linux-x64-gnu"]["version"] == "0.5.29"
