"""`liftlock init`: what it writes loads, resolves and can be judged; a folder that is taken is left alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from evals.gate import decide
from evals.prompt import load_prompt, messages
from evals.suite import load_items, resolve_task
from flows.scaffold import FolderTaken, NameRefused, scaffold
from tasks.dataset import read_dataset
from tasks.judge import policy_of
from tasks.spec import NAME, json_schema, load_release
from tests.fix_reports import make_report

ITEMS = [f"item-{i:02}" for i in range(12)]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    scaffold(tmp_path / "guest_comments")
    return tmp_path / "guest_comments"


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def items(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data" / f"{split}.jsonl").read_text().splitlines()]


def test_the_files_are_told_and_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "guest_comments"
    told = scaffold(folder)
    assert told[0] == folder / "release.yaml"
    files = {"release.yaml", "prompt.yaml", "guest_comments.yaml", "README.md", "data/train.jsonl", "data/test.jsonl"}
    assert {path.relative_to(folder).as_posix() for path in told} == files
    assert set(tree(folder)) == files | {"data"}
    assert tree(tmp_path) == ["guest_comments", *(f"guest_comments/{name}" for name in tree(folder))]


def test_the_spec_loads_and_its_model_is_called_after_the_folder(made: Path) -> None:
    spec = load_release(made / "release.yaml")
    assert spec.name == "guest-comments"
    assert spec.gate.cases is None
    assert spec.sample is None
    Draft202012Validator(json_schema()).validate(YAML(typ="safe").load((made / "release.yaml").read_text()))


def test_the_task_resolves_and_asks_for_what_the_items_have(made: Path) -> None:
    spec = load_release(made / "release.yaml")
    prompt = load_prompt(spec.gate.prompt)
    task = resolve_task(spec.gate.task, spec.dataset.test, prompt)
    assert task.name == "guest_comments"
    assert task.slices == spec.dataset.slices
    assert task.config["doc_to_target"] == "{{" + spec.dataset.answer + "}}"
    for item in load_items(spec.dataset.test):
        assert messages(prompt, item)[-1]["content"] == item["text"]
    assert [split.num_rows for split in read_dataset(spec).splits] == [24, 12]


def test_every_key_of_a_release_stands_in_the_file_with_a_comment(made: Path) -> None:
    text = (made / "release.yaml").read_text()
    schema = json_schema()
    keys = {key for part in [schema, *schema["$defs"].values()] for key in part["properties"]}
    assert [key for key in sorted(keys) if not re.search(rf"^[ #]*{key}:.* # \S", text, re.MULTILINE)] == []


def test_what_is_commented_out_is_right_too(made: Path) -> None:
    file = made / "release.yaml"
    head, mark, sample = file.read_text().partition("\n# sample:")
    file.write_text(head + "\n" + (mark.strip() + sample).replace("\n# ", "\n").removeprefix("# "))
    spec = load_release(file)
    assert spec.sample is not None
    assert spec.sample.documents == ((made / "README.md").resolve(),)


def test_the_items_are_balanced_and_share_no_run_of_words(made: Path) -> None:
    train, test = items(made, "train"), items(made, "test")
    assert Counter(item["label"] for item in train) == {"praise": 12, "complaint": 12}
    assert Counter(item["label"] for item in test) == {"praise": 6, "complaint": 6}
    assert len({item["id"] for item in [*train, *test]}) == 36
    known = {run for item in train for run in runs(item["text"], 4)}
    assert not [item for item in test if known & runs(item["text"], 4)]


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


@pytest.mark.parametrize(
    ("first", "right", "right_before", "verdict"),
    [
        (True, 12, 0, "passed"),
        (True, 8, 0, "passed"),
        (True, 3, 0, "inconclusive"),
        (True, 0, 0, "inconclusive"),
        (False, 12, 12, "passed"),
        (False, 0, 12, "rejected"),
    ],
)
def test_twelve_items_are_enough_for_the_gate_as_it_is_set(
    made: Path, first: bool, right: int, right_before: int, verdict: str
) -> None:
    spec = load_release(made / "release.yaml")
    candidate, baseline = (
        make_report({key: float(place < count) for place, key in enumerate(ITEMS)}, {})
        for count in (right, right_before)
    )
    assert decide(candidate, baseline, policy_of(spec, None if first else "1")).verdict == verdict


def test_the_readme_names_the_files_and_the_command(made: Path) -> None:
    text = (made / "README.md").read_text()
    assert f"liftlock release {made}/release.yaml" in text
    for name in tree(made):
        assert name in text or name in {"data", "README.md"}
    assert "$" not in text.replace(str(made), "")


# --- folders


@pytest.mark.parametrize(
    ("folder", "name"),
    [("support_bot", "support-bot"), ("Support Bot.v2", "support-bot-v2"), ("a--b__c", "a-b-c"), ("_draft_", "draft")],
)
def test_the_name_is_the_folders_in_lower_case_with_dashes(tmp_path: Path, folder: str, name: str) -> None:
    scaffold(tmp_path / folder)
    assert load_release(tmp_path / folder / "release.yaml").name == name
    assert (tmp_path / folder / f"{name.replace('-', '_')}.yaml").is_file()


@pytest.mark.parametrize("folder", ["9lives", "a", "a" * 41, "modèle", "a+b", "release", "Prompt", "___"])
def test_a_name_that_no_model_can_have_is_refused_and_nothing_made(tmp_path: Path, folder: str) -> None:
    with pytest.raises(NameRefused, match="a name has 2 to 40 of a-z, 0-9 and -"):
        scaffold(tmp_path / "deep" / folder)
    assert tree(tmp_path) == []


@pytest.mark.parametrize("folder", ["true", "null", "on", "on-off", "nan", "task"])
def test_a_name_that_yaml_reads_as_something_else_is_still_text(tmp_path: Path, folder: str) -> None:
    scaffold(tmp_path / folder)
    spec = load_release(tmp_path / folder / "release.yaml")
    assert spec.name == folder
    assert resolve_task(spec.gate.task, spec.dataset.test, load_prompt(spec.gate.prompt)).name == folder.replace(
        "-", "_"
    )


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("names")
    return (base / str(number) for number in count())


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=50))
@examples(max_examples=60)
def test_any_folder_name_is_refused_or_gives_a_spec_that_loads(numbered: Iterator[Path], name: str) -> None:
    folder = next(numbered) / name
    try:
        scaffold(folder)
    except (NameRefused, FolderTaken):
        assert not (folder / "release.yaml").exists()
    else:
        assert re.fullmatch(NAME, load_release(folder / "release.yaml").name)


def test_a_folder_with_something_in_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".hidden").write_text("mine")
    with pytest.raises(FolderTaken, match="is not empty; give a new or empty folder"):
        scaffold(tmp_path / "model")
    assert tree(tmp_path) == ["model", "model/.hidden"]


def test_a_second_time_is_refused_and_changes_nothing(made: Path) -> None:
    (made / "release.yaml").write_text("mine")
    with pytest.raises(FolderTaken):
        scaffold(made)
    assert (made / "release.yaml").read_text() == "mine"


def test_a_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FolderTaken, match="is a file"):
        scaffold(tmp_path / "model")
    with pytest.raises(FolderTaken, match="cannot be made"):
        scaffold(tmp_path / "model" / "inside")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_link_to_nowhere_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(tmp_path / "gone")
    with pytest.raises(FolderTaken):
        scaffold(tmp_path / "model")
    assert tree(tmp_path) == ["model"]


def test_an_empty_folder_stays_the_folder_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir(mode=0o750)
    before = folder.stat()
    monkeypatch.chdir(folder)
    scaffold(Path())
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert load_release(Path("release.yaml")).name == "model"
    assert not [name for name in tree(folder) if name.startswith(".")]


def test_folders_above_are_made(tmp_path: Path) -> None:
    scaffold(tmp_path / "a" / "b$name" / "model")
    assert load_release(tmp_path / "a" / "b$name" / "model" / "release.yaml").name == "model"
    assert tree(tmp_path / "a" / "b$name")[0] == "model"
