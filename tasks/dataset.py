"""prepare: the dataset's files, read whole, checked, and named by their sha256. Always runs: it is what the keys rest on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from evals.prompt import Prompt, PromptInvalid, load_prompt, messages
from evals.suite import check_repeats, resolve_task
from tasks.artifacts import Dataset, Split
from tasks.spec import Release
from tasks.stage import digest_of, stage

Item = dict[str, Any]


class DatasetRefused(Exception):
    """A data file that cannot be trained on or scored; the message names file, line and fault."""


def read_items(path: Path, required: tuple[str, ...] = ("id",)) -> list[Item]:
    """JSON Lines with unique text ids and the required fields, each text or a number. Raises DatasetRefused."""
    items: list[Item] = []
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would break inside a text
    except UnicodeDecodeError as error:
        raise DatasetRefused(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DatasetRefused(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            items.append(_item(path, number, line, required, seen))
    if not items:
        raise DatasetRefused(f"{path}: no items; give at least one JSON object a line")
    return items


def _item(path: Path, number: int, line: str, required: tuple[str, ...], seen: dict[str, int]) -> Item:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetRefused(f"{path}:{number}: not JSON: {error}") from None
    if not isinstance(item, dict):
        raise DatasetRefused(f"{path}:{number}: a {type(item).__name__}, required a JSON object")
    missing = [field for field in required if not _filled(item.get(field))]
    if missing:
        raise DatasetRefused(
            f"{path}:{number}: {', '.join(missing)} missing or empty; every item needs {', '.join(required)}"
        )
    if not isinstance(item["id"], str):
        raise DatasetRefused(f"{path}:{number}: id is {item['id']!r}, required text; write it in quotes")
    if item["id"] in seen:
        raise DatasetRefused(
            f"{path}:{number}: id {item['id']!r} stands already in line {seen[item['id']]}; ids must be unique"
        )
    seen[item["id"]] = number
    return item


def _filled(value: object) -> bool:
    return isinstance(value, (str, int, float)) and bool(str(value).strip())


def read_dataset(spec: Release) -> Dataset:
    """Check every file before anything expensive runs. Raises DatasetRefused, PromptInvalid, SuiteInvalid."""
    answer, prompt = spec.dataset.answer, load_prompt(spec.gate.prompt)
    if spec.gate.repeats > 1:
        check_repeats(resolve_task(spec.gate.task, spec.dataset.test, prompt), spec.gate.repeats)
    asked: dict[str, dict[str, str]] = {}
    splits: list[Split] = []
    for name, path, required in (
        ("train", spec.dataset.train, ("id", answer)),
        ("test", spec.dataset.test, ("id", answer, *spec.dataset.slices, *filter(None, [spec.gate.cluster]))),
        ("replay", spec.dataset.replay, ("id", "user", "answer")),
    ):
        if path is None:
            continue
        items = read_items(path, required)
        if name != "replay":
            asked[name] = {_asked(path, item, prompt): item["id"] for item in items}
        splits.append(Split(name, path, hashlib.sha256(path.read_bytes()).hexdigest(), len(items)))
    shared = sorted(asked["test"][text] for text in asked["train"].keys() & asked["test"].keys())
    if shared:
        raise DatasetRefused(
            f"{spec.dataset.test}: {len(shared)} items ask what an item of {spec.dataset.train} asks, e.g. {shared[0]}; "
            "a score on them says nothing. Take them out of one of the two"
        )
    revision = digest_of([(split.name, split.sha256) for split in splits])
    return Dataset(spec.name, revision, tuple(splits))


def _asked(path: Path, item: Item, prompt: Prompt) -> str:
    try:
        return json.dumps(messages(prompt, item)).casefold()
    except PromptInvalid as error:
        raise DatasetRefused(f"{path}: item {item['id']}: {error}") from None


def _table(dataset: Dataset) -> str:
    rows = "\n".join(
        f"| {split.name} | {split.num_rows} | `{split.sha256[:16]}` | {split.path.name} |" for split in dataset.splits
    )
    return f"Dataset **{dataset.name}**, revision `{dataset.revision[:16]}`\n\n| split | items | sha256 | file |\n|---|---|---|---|\n{rows}\n"


prepare = stage(
    "prepare",
    key=None,
    digest=lambda dataset: dataset.revision,
    note=lambda dataset: ", ".join(f"{split.num_rows} {split.name}" for split in dataset.splits) + " items",
    artifact=_table,
)(read_dataset)
