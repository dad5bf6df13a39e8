"""A suite's files: its lm-eval task, prompt, promptfoo cases and data, read and checked. It reads files, runs nothing.

A suite is a folder: `<name>.yaml` (the lm-eval task), `prompt.yaml`, `promptfoo.yaml`, `data/<split>.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from evals.nesting import too_deep
from evals.prompt import Prompt
from evals.report import canonical

Item = dict[str, Any]


class SuiteInvalid(Exception):
    """A file of the suite is missing or contradicts what the runners need."""


@dataclass(frozen=True)
class Suite:
    """Where a suite's files are, and its prompt."""

    name: str
    task_yaml: Path
    promptfoo_yaml: Path | None
    prompt: Prompt


@dataclass(frozen=True)
class Task:
    """An lm-eval task as it will be run: `config` has the prompt and the absolute path of the data."""

    name: str
    version: str
    slices: tuple[str, ...]
    config: Mapping[str, Any]
    sha256: str


def load_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if too_deep(text):
            raise SuiteInvalid(f"{path} is nested too deeply; required: what a task or a list of cases needs")
        found = YAML(typ="safe").load(text)
    except OSError as error:
        raise SuiteInvalid(f"cannot read {path}: {error.strerror}") from error
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date or number that is none
        raise SuiteInvalid(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise SuiteInvalid(f"{path} holds {type(found).__name__}; it has to be a mapping")
    return found


def load_items(dataset: Path) -> tuple[Item, ...]:
    """The JSON lines of a split, each with a text `id` of its own. Blank lines are skipped."""
    try:
        lines = dataset.read_text(encoding="utf-8").split("\n")  # splitlines would break inside a text
    except OSError as error:
        raise SuiteInvalid(f"cannot read the dataset {dataset}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteInvalid(f"the dataset {dataset} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    items = tuple(_item(line, dataset, number) for number, line in enumerate(lines, 1) if line.strip())
    if not items:
        raise SuiteInvalid(f"the dataset {dataset} has no items; an evaluation needs at least one")
    seen: set[str] = set()
    for item in items:
        if item["id"] in seen:
            raise SuiteInvalid(f"the dataset {dataset} has the id {item['id']!r} twice; pairing needs unique ids")
        seen.add(item["id"])
    return items


def _item(line: str, dataset: Path, number: int) -> Item:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SuiteInvalid(f"{dataset}:{number} is not JSON ({error})") from error
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        raise SuiteInvalid(f"{dataset}:{number} has no text id; every item needs one")
    return item


def resolve_task(task_yaml: Path, dataset: Path, prompt: Prompt) -> Task:
    """The task with this data file and this prompt. SuiteInvalid where the YAML brings a prompt or has examples."""
    config = load_yaml(task_yaml)
    for key in ("task", "test_split", "output_type", "doc_to_target", "metric_list"):
        if key not in config:
            raise SuiteInvalid(f"{task_yaml} lacks {key}")
    for key in ("doc_to_text", "description", "fewshot_split"):
        if config.get(key):
            raise SuiteInvalid(f"{task_yaml} has {key}; the prompt is written in prompt.yaml only")
    if config.get("num_fewshot", 0) != 0:
        raise SuiteInvalid(f"{task_yaml} has num_fewshot {config['num_fewshot']}; examples are not rendered: write 0")
    if config.get("repeats", 1) != 1:
        raise SuiteInvalid(f"{task_yaml} has repeats {config['repeats']}; how often an item is asked is gate.repeats")
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("slices", []), list):
        raise SuiteInvalid(f"{task_yaml} has a metadata that is no mapping, or slices in it that are no list")
    own = {**config, "doc_to_text": prompt.user, "num_fewshot": 0}
    data_files = {str(config["test_split"]): str(dataset.resolve())}
    try:
        sha256 = hashlib.sha256(canonical({**own, "dataset_kwargs": None}).encode()).hexdigest()
    except (ValueError, TypeError) as error:  # .inf, a date, half a surrogate pair
        raise SuiteInvalid(f"{task_yaml} has a value that JSON cannot hold ({error}); write it in quotes") from None
    return Task(
        name=str(config["task"]),
        version=str(metadata.get("version", "unversioned")),
        slices=tuple(map(str, metadata.get("slices", ()))),
        config={**own, "dataset_path": "json", "dataset_kwargs": {"data_files": data_files}},
        sha256=sha256,
    )


def is_sampled(settings: Mapping[str, Any]) -> bool:
    """Whether generation settings draw answers: the temperature is what the endpoint gets."""
    return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0


def check_repeats(task: Task, repeats: int) -> None:
    """Raises SuiteInvalid where a task without sampling would be asked the same again."""
    if repeats > 1 and not is_sampled(task.config.get("generation_kwargs") or {}):
        raise SuiteInvalid(
            f"the task {task.name} answers greedily and gate.repeats is {repeats}: all answers would be the same; give "
            "generation_kwargs a temperature above 0, or leave gate.repeats out"
        )


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
