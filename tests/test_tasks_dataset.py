"""A data file that cannot be trained on or scored is refused before anything starts, with file, line and fault."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.suite import SuiteInvalid
from tasks.dataset import DatasetRefused, read_dataset, read_items
from tasks.spec import Release, load_release

TRAIN = [{"id": "t1", "text": "warm bread", "label": "good"}, {"id": "t2", "text": "cold soup", "label": "bad"}]
TEST = [{"id": "s1", "text": "kind staff", "label": "good", "size": "small"}]
REPLAY = [{"id": "r1", "user": "Who are you?", "answer": "A model."}]
SPEC = """\
name: a-model
base_model: some-model
dataset: {train: train.jsonl, test: test.jsonl, answer: label, slices: [size]}
gate: {task: task.yaml, prompt: prompt.yaml}
"""


def lines(items: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def spec_of(folder: Path, train: str | None = None, test: str | None = None, replay: str | None = None) -> Release:
    (folder / "train.jsonl").write_text(lines(TRAIN) if train is None else train, encoding="utf-8")
    (folder / "test.jsonl").write_text(lines(TEST) if test is None else test, encoding="utf-8")
    (folder / "task.yaml").write_text("task: a_model\n")
    (folder / "prompt.yaml").write_text('system: null\nuser: "{{text}}"\n')
    text = SPEC
    if replay is not None:
        (folder / "replay.jsonl").write_text(replay, encoding="utf-8")
        text = text.replace("answer: label", "answer: label, replay: replay.jsonl")
    (folder / "release.yaml").write_text(text)
    return load_release(folder / "release.yaml")


def refusal(spec: Release) -> str:
    with pytest.raises(DatasetRefused) as caught:
        read_dataset(spec)
    return str(caught.value).replace(f"{spec.dataset.train.parent}/", "")


def test_the_files_are_counted_and_named_by_their_bytes(tmp_path: Path) -> None:
    dataset = read_dataset(spec_of(tmp_path, replay=lines(REPLAY)))
    assert [(split.name, split.num_rows) for split in dataset.splits] == [("train", 2), ("test", 1), ("replay", 1)]
    for split in dataset.splits:
        assert split.sha256 == hashlib.sha256(split.path.read_bytes()).hexdigest()


def test_the_revision_is_of_the_bytes_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = read_dataset(spec_of(tmp_path / "a")).revision
    assert read_dataset(spec_of(tmp_path / "b")).revision == first
    assert read_dataset(spec_of(tmp_path / "b", train=lines(TRAIN[::-1]))).revision != first


def test_blank_lines_and_breaks_inside_a_text_are_no_item(tmp_path: Path) -> None:
    text = '\n{"id": "a", "t": "one\u2028line\x85here"}\n\n{"id": "b"}\r\n  \n'
    (tmp_path / "x.jsonl").write_bytes(text.encode())
    assert [item["id"] for item in read_items(tmp_path / "x.jsonl")] == ["a", "b"]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("", "train.jsonl: no items; give at least one JSON object a line"),
        ("\n  \n", "train.jsonl: no items"),
        (lines(TRAIN) + "{", "train.jsonl:3: not JSON: "),
        ('{"id": 1' + "0" * 5000 + "}", "train.jsonl:1: not JSON: "),
        ("[" * 100_000, "train.jsonl:1: not JSON: "),
        ('["t1", "warm bread", "good"]', "train.jsonl:1: a list, required a JSON object"),
        ("null", "train.jsonl:1: a NoneType, required a JSON object"),
        (lines([*TRAIN, {"text": "x", "label": "good"}]), "train.jsonl:3: id missing or empty; every item needs id, label"),
        (lines([{"id": "t1", "text": "x"}]), "train.jsonl:1: label missing or empty"),
        (lines([{"id": "t1", "text": "x", "label": None}]), "train.jsonl:1: label missing or empty"),
        (lines([{"id": "t1", "text": "x", "label": " "}]), "train.jsonl:1: label missing or empty"),
        (lines([{"id": "t1", "text": "x", "label": ["good"]}]), "train.jsonl:1: label missing or empty"),
        (lines([{"id": "", "text": "x", "label": ""}]), "train.jsonl:1: id, label missing or empty"),
        (lines([{"id": 7, "text": "x", "label": "good"}]), "train.jsonl:1: id is 7, required text; write it in quotes"),
        (lines([*TRAIN, TRAIN[0]]), "train.jsonl:3: id 't1' stands already in line 1; ids must be unique"),
        (lines([{"id": "t1", "label": "good"}]), "train.jsonl: item t1: the prompt asks for the column 'text'"),
    ],
)  # fmt: skip
def test_a_training_file_that_cannot_be_learned_from(tmp_path: Path, train: str, words: str) -> None:
    assert refusal(spec_of(tmp_path, train=train)).startswith(words)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (lines([{"id": "s1", "text": "x", "label": "good"}]), "test.jsonl:1: size missing or empty; every item needs id, label, size"),
        (lines([{"id": "s1", "label": "good", "size": "s"}]), "test.jsonl: item s1: the prompt asks for the column 'text'"),
    ],
)  # fmt: skip
def test_a_test_file_that_cannot_be_scored(tmp_path: Path, test: str, words: str) -> None:
    assert refusal(spec_of(tmp_path, test=test)).startswith(words)


@pytest.mark.parametrize(
    "leaked",
    [
        {"id": "s2", "text": "cold soup", "label": "bad", "size": "small"},
        {"id": "s2", "text": "Cold Soup", "label": "bad", "size": "large", "note": "another field"},
        {"id": "s2", "text": "cold soup", "label": "good", "size": "small"},  # the other label does not make it another question
    ],
)  # fmt: skip
def test_a_test_item_that_stands_in_train_is_refused(tmp_path: Path, leaked: dict[str, str]) -> None:
    said = refusal(spec_of(tmp_path, test=lines([*TEST, leaked])))
    assert said.startswith("test.jsonl: 1 items ask what an item of train.jsonl asks, e.g. s2; ")


def test_a_replay_dialog_needs_a_question_and_an_answer(tmp_path: Path) -> None:
    said = refusal(spec_of(tmp_path, replay=lines([{"id": "r1", "user": "Who?"}])))
    assert said.startswith("replay.jsonl:1: answer missing or empty; every item needs id, user, answer")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.dataset.test.write_bytes(lines(TEST).encode() + b"\xff\xfe\n")
    assert refusal(spec) == f"test.jsonl: not UTF-8 text (byte {len(lines(TEST))}); save it as UTF-8"


def test_a_file_that_went_away_after_the_spec_was_read(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.dataset.test.unlink()
    assert refusal(spec) == "test.jsonl: cannot be read: No such file or directory"


def test_an_item_without_its_cluster_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    clustered = spec.model_copy(update={"gate": spec.gate.model_copy(update={"cluster": "dialogue"})})
    assert "dialogue" in refusal(clustered)
    (tmp_path / "test.jsonl").write_text(lines([{**TEST[0], "dialogue": "d1"}]), encoding="utf-8")
    assert read_dataset(clustered).split("test").num_rows == 1


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_repeats_of_a_greedy_task_are_refused_before_the_training(tmp_path: Path, temperature: float) -> None:
    spec = spec_of(tmp_path)
    task = "task: t\ntest_split: test\noutput_type: generate_until\ndoc_to_target: x\nmetric_list: []\n"
    spec.gate.task.write_text(f"{task}generation_kwargs: {{temperature: {temperature}}}\n")
    repeated = spec.model_copy(update={"gate": spec.gate.model_copy(update={"repeats": 4})})
    if temperature:
        assert read_dataset(repeated).split("test").num_rows == 1
    else:
        with pytest.raises(SuiteInvalid, match="the task t answers greedily"):
            read_dataset(repeated)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("items") / "any.jsonl"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "label", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.binary() | st.lists(JSON, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()))
def test_any_bytes_are_items_or_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        items = read_items(file, ("id", "label"))
    except DatasetRefused as refused:
        assert str(refused).startswith(str(file))
    else:
        ids = [item["id"] for item in items]
        assert len(set(ids)) == len(ids) > 0
        assert all(isinstance(key, str) and key.strip() for key in ids)
