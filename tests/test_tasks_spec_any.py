"""Whatever stands in a release.yaml, it is read or refused; and its JSON Schema says to an editor what the reader says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tasks.spec import Release, SpecInvalid, json_schema
from tests.fix_spec import SMALL, fill, load, refusal

SUITE = Path(__file__).parent.parent / "evals" / "ticket_router"


def read_or_refused(folder: Path, text: str) -> bool:
    """A Release, or a refusal that names the file and can be printed; never anything else."""
    try:
        return isinstance(load(folder, text), Release)
    except SpecInvalid as refused:
        return str(refused).encode().startswith(str(folder / "release.yaml").encode())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("spec"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text(filled: Path, text: str) -> None:
    assert read_or_refused(filled, text)


PIECES = st.sampled_from(
    [*SMALL.splitlines(keepends=True), "training:", " r:", " 8", "\n", "  ", "\t", "- ", "? ", ": ", "&a ", "*a", "<<", "!!set ", "!!int ",
     "!x ", "!", "|", ">", "{", "}", "[", "]", ",", "'", '"', "\\", "\\ud800", "%YAML 3", "---", "...", "#", "~", ".nan", "1e400", "0x",
     "2001-99-99", "\0", "\x85", "\u2028"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join))
def test_any_text_that_looks_like_yaml(filled: Path, text: str) -> None:
    assert read_or_refused(filled, text)


FULL: dict[str, Any] = {
    **YAML(typ="safe").load(SMALL),
    "training": {"r": 8, "learning_rate": 1e-3, "target_modules": ["q_proj"]},
    "serving": {"gpu": "nvidia-l4", "max_lora_rank": 16},
    "delivery": {"steps": [10, 100], "max_error_rate": 0.0},
    "sample": {"documents": ["data"], "questions": ["a"]},
}
PLACES = [(key,) for key in FULL] + [
    (key, inner) for key, value in FULL.items() if isinstance(value, dict) for inner in value
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_value_in_any_place(filled: Path, changes: list[tuple[tuple[str, ...], Any]]) -> None:
    tree = copy.deepcopy(FULL)
    for place, value in changes:
        target = tree
        for part in place[:-1]:
            target = target[part] if isinstance(target.get(part), dict) else {}
        target[place[-1]] = value
    assert read_or_refused(filled, json.dumps(tree))


def test_the_spec_that_those_changes_start_from_is_right(filled: Path) -> None:
    assert load(filled, json.dumps(FULL)).training.target_modules == ("q_proj",)


# --- the schema for editors


def test_the_schema_is_a_json_schema_in_which_every_key_is_described() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    parts = {**schema["$defs"], "Release": schema}
    bare = [f"{name}.{key}" for name, part in parts.items() for key, value in part["properties"].items() if not value.get("description")]  # fmt: skip
    assert bare == []
    assert all(part["additionalProperties"] is False for part in parts.values())


@pytest.mark.parametrize("name", ["release.yaml", "release-mislabelled.yaml"])
def test_the_samples_specs_match_the_schema(name: str) -> None:
    tree = YAML(typ="safe").load((SUITE / name).read_text())
    assert list(Draft202012Validator(json_schema()).iter_errors(tree)) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("name",), "A Model"), (("nmae",), "x"), (("training", "r"), 257), (("training", "r"), "8"), (("training", "lr"), 1), (("gate",), None),
        (("serving", "max_lora_rank"), 12), (("delivery", "steps"), [0, 100]), (("sample", "questions"), []), (("dataset", "train"), 3),
    ],
)  # fmt: skip
def test_an_editor_marks_what_the_reader_refuses(filled: Path, place: tuple[str, ...], value: Any) -> None:
    tree = copy.deepcopy(FULL)
    target = tree
    for part in place[:-1]:
        target = target[part]
    target[place[-1]] = value
    assert not Draft202012Validator(json_schema()).is_valid(tree)
    refusal(filled, json.dumps(tree))
