"""The suite's data: sizes, ids, slices, no leakage between the splits, and a mislabelled file that can teach nothing."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

SUITE = Path(__file__).parent.parent / "evals" / "ticket_router"
SPLITS = ("train", "dev", "test")
ATLEAST = {"train": 480, "dev": 120, "test": 300}
REGISTERS = {"formal", "casual", "terse"}
RUN = 6  # words; the longest run that any item outside train shares with train is shorter
SIMILAR = 0.4  # Jaccard similarity of word 3-grams; the closest pair of test and train has 0.375, a typo both quote

Items = list[dict[str, Any]]


def read(name: str) -> Items:
    return [
        json.loads(line) for line in (SUITE / "data" / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]


@pytest.fixture(scope="module")
def splits() -> dict[str, Items]:
    return {name: read(name) for name in SPLITS}


@pytest.fixture(scope="module")
def teams() -> set[str]:
    """The first column of the README's table."""
    found = set(re.findall(r"^\| `(\w+)` \|", (SUITE / "README.md").read_text(), re.MULTILINE))
    assert len(found) == 8
    return found


def grams(text: str, length: int) -> set[tuple[str, ...]]:
    """Runs of `length` words, without case and punctuation; a shorter text is one run."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


# --- shape


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_large_enough_and_each_team_has_its_share(
    splits: dict[str, Items], teams: set[str], name: str
) -> None:
    counts = Counter(item["team"] for item in splits[name])
    assert counts.total() >= ATLEAST[name]
    assert set(counts) == teams
    assert max(counts.values()) <= 1.1 * min(counts.values())


@pytest.mark.parametrize("name", SPLITS)
def test_an_item_has_the_columns_that_the_readme_names(splits: dict[str, Items], teams: set[str], name: str) -> None:
    for item in splits[name]:
        assert set(item) == {"id", "ticket", "team", "length", "register"}
        assert re.fullmatch(rf"{name}-{item['team']}-\d{{3}}", item["id"])
        assert item["register"] in REGISTERS
        assert item["ticket"].strip() == item["ticket"] != ""


@pytest.mark.parametrize("name", SPLITS)
def test_the_length_slice_is_the_number_of_words(splits: dict[str, Items], name: str) -> None:
    for item in splits[name]:
        words = len(item["ticket"].split())
        assert item["length"] == ("short" if words <= 12 else "medium" if words <= 30 else "long"), item["id"]


def test_every_slice_has_test_items_to_tell_something(splits: dict[str, Items]) -> None:
    for column in ("length", "register"):
        assert min(Counter(item[column] for item in splits["test"]).values()) >= 30


def test_ids_and_tickets_are_unique_over_all_splits(splits: dict[str, Items]) -> None:
    everything = [item for items in splits.values() for item in items]
    assert len({item["id"] for item in everything}) == len(everything)
    assert len({item["ticket"].casefold() for item in everything}) == len(everything)


# --- leakage


@pytest.mark.parametrize("name", ["dev", "test"])
def test_no_run_of_words_is_shared_with_train(splits: dict[str, Items], name: str) -> None:
    known = {gram: item["id"] for item in splits["train"] for gram in grams(item["ticket"], RUN)}
    shared = [
        (item["id"], known[gram]) for item in splits[name] for gram in grams(item["ticket"], RUN) if gram in known
    ]
    assert shared == []


def test_no_run_of_words_is_shared_between_dev_and_test(splits: dict[str, Items]) -> None:
    dev, test = ({gram for item in splits[name] for gram in grams(item["ticket"], RUN)} for name in ("dev", "test"))
    assert not dev & test


@pytest.mark.parametrize("name", ["dev", "test"])
def test_no_item_resembles_a_training_item(splits: dict[str, Items], name: str) -> None:
    train = [grams(item["ticket"], 3) for item in splits["train"]]
    places: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for place, found in enumerate(train):
        for gram in found:
            places[gram].add(place)
    for item in splits[name]:
        own = grams(item["ticket"], 3)
        near = {place for gram in own for place in places.get(gram, ())}
        closest = max((len(own & train[place]) / len(own | train[place]) for place in near), default=0.0)
        assert closest < SIMILAR, item["id"]


# --- the mislabelled file


def test_the_mislabelled_file_has_the_same_tickets_with_shuffled_labels(splits: dict[str, Items]) -> None:
    wrong = read("train_mislabelled")
    assert [{**item, "team": ""} for item in wrong] == [{**item, "team": ""} for item in splits["train"]]
    assert Counter(item["team"] for item in wrong) == Counter(item["team"] for item in splits["train"])
    right = sum(a["team"] == b["team"] for a, b in zip(wrong, splits["train"], strict=True))
    assert right <= len(wrong) / 7  # by chance an eighth


# --- replay and cases


def test_the_replay_dialogs_are_whole_and_no_tickets(splits: dict[str, Items], teams: set[str]) -> None:
    dialogs = read("replay")
    assert len({item["id"] for item in dialogs}) == len(dialogs)
    for item in dialogs:
        assert all(item[field].strip() for field in ("id", "system", "user", "answer"))
        assert item["answer"] not in teams
    known = {gram for item in dialogs for gram in grams(item["user"], RUN)}
    assert not [item["id"] for item in splits["test"] if known & grams(item["ticket"], RUN)]


def test_there_are_enough_promptfoo_cases_of_each_group(teams: set[str]) -> None:
    config = YAML(typ="safe").load((SUITE / "promptfoo.yaml").read_text())
    cases = config["tests"]
    assert len(cases) >= 25
    assert len({case["metadata"]["id"] for case in cases}) == len(cases)
    assert min(Counter(case["metadata"]["group"] for case in cases).values()) >= 5
    assert {case["metadata"]["group"] for case in cases} == {"format", "refusal", "injection"}
    [general] = config["defaultTest"]["assert"]
    assert set(re.findall(r"'(\w+)'", general["value"])) == teams
    expected = [check["value"] for case in cases for check in case.get("assert", ()) if check["type"] == "equals"]
    assert set(expected) <= teams


def test_no_case_is_a_training_item_word_for_word(splits: dict[str, Items]) -> None:
    known = {frozenset(grams(item["ticket"], 3)) for item in splits["train"]}
    cases = YAML(typ="safe").load((SUITE / "promptfoo.yaml").read_text())["tests"]
    assert not [case["metadata"]["id"] for case in cases if frozenset(grams(case["vars"]["ticket"], 3)) in known]
