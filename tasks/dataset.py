"""prepare: the dataset's files, read whole, checked, and named by their sha256. Always runs: it is what the keys rest on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tasks.artifacts import Dataset, Split
from tasks.spec import Release
from tasks.stage import digest_of, stage

Item = dict[str, Any]


class DatasetRefused(Exception):
    """A data file that cannot be trained on or scored; the message names file, line and fault."""


def read_items(path: Path, required: tuple[str, ...] = ("id",)) -> list[Item]:
    """JSON Lines with unique ids and the required fields. Raises DatasetRefused."""
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="strict").splitlines(), 1):
        if not line.strip():
            continue
        items.append(_item(path, number, line, required, seen))
    if not items:
        raise DatasetRefused(f"{path}: no items; give at least one JSON object a line")
    return items


def _item(path: Path, number: int, line: str, required: tuple[str, ...], seen: dict[str, int]) -> Item:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetRefused(f"{path}:{number}: not JSON: {error.msg}") from None
    if not isinstance(item, dict):
        raise DatasetRefused(f"{path}:{number}: a {type(item).__name__}, required a JSON object")
    missing = [field for field in required if not str(item.get(field, "")).strip()]
    if missing:
        raise DatasetRefused(
            f"{path}:{number}: {', '.join(missing)} missing or empty; every item needs {', '.join(required)}"
        )
    if item["id"] in seen:
        raise DatasetRefused(
            f"{path}:{number}: id {item['id']!r} stands already in line {seen[item['id']]}; ids must be unique"
        )
    seen[item["id"]] = number
    return item


def read_dataset(spec: Release) -> Dataset:
    """Check every file before anything expensive runs. Raises DatasetRefused."""
    answer = spec.dataset.answer
    texts: dict[str, set[str]] = {}
    splits: list[Split] = []
    for name, path, required in (
        ("train", spec.dataset.train, ("id", answer)),
        ("test", spec.dataset.test, ("id", answer, *spec.dataset.slices)),
        ("replay", spec.dataset.replay, ("id", "user", "answer")),
    ):
        if path is None:
            continue
        items = read_items(path, required)
        texts[name] = {_content(item) for item in items}
        splits.append(Split(name, path, hashlib.sha256(path.read_bytes()).hexdigest(), len(items)))
    shared = texts["train"] & texts["test"]
    if shared:
        raise DatasetRefused(
            f"{len(shared)} test items stand in {spec.dataset.train} too, e.g. {min(shared)[:80]}; a score on them says nothing. Take them out"
        )
    revision = digest_of([(split.name, split.sha256) for split in splits])
    return Dataset(spec.name, revision, tuple(splits))


def _content(item: Item) -> str:
    return json.dumps({key: value for key, value in item.items() if key != "id"}, sort_keys=True).lower()


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
