"""Plain YAML keeps the line of every key and refuses what needs an interpreter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.plain_yaml import YamlInvalid, read_plain


def test_values_and_lines() -> None:
    text = "# a comment\na: 1\n\nb:\n  c: [x,\n      2.5]\n  'd e': {f: true}\n"
    plain = read_plain(text)
    assert plain.value == {"a": 1, "b": {"c": ["x", 2.5], "d e": {"f": True}}}
    assert plain.lines == {
        ("a",): 2, ("b",): 4, ("b", "c"): 5, ("b", "c", "0"): 5, ("b", "c", "1"): 6, ("b", "d e"): 7, ("b", "d e", "f"): 7,
    }  # fmt: skip


def test_the_line_of_what_is_not_there_is_its_parents() -> None:
    plain = read_plain("a: 1\nb:\n  c: 2\n")
    assert plain.line(("b", "c", "deeper")) == 3
    assert plain.line(("b", "other")) == 2
    assert plain.line(("nowhere",)) == 1
    assert plain.line(()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-3", -3), ("0x1f", 31), ("0o17", 15), ("1_000", 1000), ("2e-3", 0.002), (".5", 0.5), ("-.inf", float("-inf")),
        ("true", True), ("False", False), ("~", None), ("null", None), ("", None),
        ("yes", "yes"), ("2001-01-01", "2001-01-01"), ("'3'", "3"), ('"\\u00e9"', "é"), ("=", "="), ("!!str 5", "5"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    found = read_plain(f"a: {text}\n").value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_text_has_no_value(text: str) -> None:
    assert read_plain(text).value is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1,\n  2\n", 4, "not valid YAML: expected .*, while parsing a flow sequence in line 2"),
        ("a: 1\nb: c: 2\n", 2, "not valid YAML: mapping values are not allowed here"),
        ("a: 1\n\nb: 2\na: 3\n", 4, "the key 'a' stands already in line 1"),
        ("a: &x 1\nb: *x\n", 1, "anchors and aliases"),
        ("&x {a: *x}\n", 1, "anchors and aliases"),
        ("a: 1\nb: !!set {c}\n", 2, "the tag tag:yaml.org,2002:set is not read here"),
        ("a: !mine 1\n", 1, "'1' cannot be read as !mine"),
        ("a: !!int x\n", 1, "'x' cannot be read as int"),
        (f"a: {'9' * 5000}\n", 1, "cannot be read as int"),
        (f"a: 0x{'f' * 5000}\n", 1, "cannot be read as int"),
        ("? [a]\n: 1\n", 1, "a key is text"),
        ("a: 1\nb: x\0y\n", 2, "control character U\\+0000"),
        ('a: "\\ud800"\n', 1, "half of a surrogate pair"),
        ("a: " + "[" * 600, 1, "nested too deeply"),
        ("a: " + "[" * 100 + "]" * 100, 1, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(YamlInvalid, match=words) as caught:
        read_plain(text)
    assert caught.value.line == line


SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_characters="\x7f"), max_size=12)
TREES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(TREES)
def test_json_is_read_as_it_is_meant(tree: Any) -> None:
    assert read_plain(json.dumps(tree)).value == tree


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_plain(text)
    except YamlInvalid as refused:
        breaks = sum(text.count(character) for character in "\n\r\x85\u2028\u2029")
        assert 1 <= refused.line <= breaks + 2  # a text that ends too early is wrong in the line after it
        assert str(refused).encode()
