"""A suite's files are read and checked before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.prompt import Prompt
from evals.suite import SuiteInvalid, load_items, load_yaml, resolve_task
from tests.fix_reports import ticket_router

SUITE = Path(__file__).parent.parent / "evals" / "ticket_router"
PROMPT = Prompt(None, "{{ticket}}")
TASK = """
task: tiny
test_split: test
output_type: generate_until
doc_to_target: "{{team}}"
metric_list: [{metric: exact_match}]
metadata: {version: 2.0, slices: [length]}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_ticket_router_suite_loads() -> None:
    suite = ticket_router()
    assert suite.name == "ticket_router"
    task = resolve_task(suite.task_yaml, SUITE / "data" / "test.jsonl", suite.prompt)
    assert task.slices == ("team", "length", "register")
    assert task.config["dataset_kwargs"] == {"data_files": {"test": str((SUITE / "data" / "test.jsonl").resolve())}}
    assert task.config["doc_to_text"] == suite.prompt.user


def test_a_task_is_resolved_with_its_prompt_and_data(tmp_path: Path) -> None:
    task_yaml = write(tmp_path / "tiny.yaml", TASK)
    task = resolve_task(task_yaml, tmp_path / "a.jsonl", PROMPT)
    assert (task.name, task.version, task.slices) == ("tiny", "2.0", ("length",))
    elsewhere = resolve_task(task_yaml, tmp_path / "b.jsonl", PROMPT)
    assert elsewhere.sha256 == task.sha256  # where the data lies is no part of the task
    assert resolve_task(task_yaml, tmp_path / "a.jsonl", Prompt(None, "Q: {{ticket}}")).sha256 != task.sha256


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("doc_to_text: '{{ticket}}'", "has doc_to_text; the prompt is written in prompt.yaml only"),
        ("description: Route it.", "has description"),
        ("num_fewshot: 3", "has num_fewshot 3"),
    ],
)
def test_a_task_with_a_prompt_of_its_own_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(SuiteInvalid, match=words):
        resolve_task(write(tmp_path / "t.yaml", f"{TASK}{line}\n"), tmp_path / "a.jsonl", PROMPT)


def test_a_task_without_a_target_is_refused(tmp_path: Path) -> None:
    text = TASK.replace("doc_to_target", "doc_to_nothing")
    with pytest.raises(SuiteInvalid, match="lacks doc_to_target"):
        resolve_task(write(tmp_path / "t.yaml", text), tmp_path / "a.jsonl", PROMPT)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "is not YAML"), ("- a", "holds list"), ("a: 1\na: 2", "is not YAML")]
)
def test_broken_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SuiteInvalid, match=words):
        load_yaml(write(tmp_path / "x.yaml", text))


def test_missing_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteInvalid, match="No such file"):
        load_yaml(tmp_path / "x.yaml")


def test_items_are_read_line_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", '{"id": "a", "t": "one\u2028line"}\n\n{"id": "b"}\n')
    assert [item["id"] for item in load_items(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no items"),
        ('{"id": "a"}\n{"id": "a"}\n', "has the id 'a' twice"),
        ('{"id": "a"}\n{"id": ', r"d\.jsonl:2 is not JSON"),
        ('{"id": 3}\n', r"d\.jsonl:1 has no text id"),
        ('["a"]\n', r"d\.jsonl:1 has no text id"),
    ],
)
def test_broken_data_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SuiteInvalid, match=words):
        load_items(write(tmp_path / "d.jsonl", text))


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteInvalid, match="cannot read the dataset"):
        load_items(tmp_path / "d.jsonl")
