"""docs/extending.md: each snippet is put where the page says, and the product takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from evals.prompt import load_prompt
from evals.suite import load_items, resolve_task
from flows.scaffold import scaffold
from serving.fit.catalogue import CATALOGUE, find_gpu
from tasks.judge import policy_of
from tasks.spec import load_release

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SNIPPETS = dict(re.findall(r"```yaml (\w+)\n(.*?)```", PAGE, re.S))


def suite(tmp_path: Path) -> Path:
    """A starting suite with the page's task, whose items have a length."""
    folder = tmp_path / "sentiment"
    scaffold(folder)
    (folder / "sentiment.yaml").write_text(SNIPPETS["suite"])
    test = folder / "data" / "test.jsonl"
    items = [json.loads(line) for line in test.read_text().splitlines()]
    for item in items:
        item["length"] = "short" if len(item["text"]) < 50 else "long"
    test.write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_all_three_are_shown() -> None:
    assert sorted(SNIPPETS) == ["gpu", "rule", "suite"]


def test_a_gpu_is_one_entry_of_the_catalogue(tmp_path: Path) -> None:
    catalogue = tmp_path / "gpus.yaml"
    catalogue.write_text(CATALOGUE.read_text().rstrip("\n") + "\n\n" + SNIPPETS["gpu"])
    card = find_gpu("nvidia-example-48gb", catalogue)
    assert card.memory_bytes == 48500 * 2**20
    assert card.fp8
    assert card.machine is not None
    assert card.machine.name == "example-8"
    assert find_gpu("nvidia-l4", catalogue) == find_gpu("nvidia-l4")


def test_a_suite_is_one_task_yaml(tmp_path: Path) -> None:
    folder = suite(tmp_path)
    task = resolve_task(folder / "sentiment.yaml", folder / "data" / "test.jsonl", load_prompt(folder / "prompt.yaml"))
    assert task.name == "sentiment"
    assert task.slices == ("length",)
    assert {item["length"] for item in load_items(folder / "data" / "test.jsonl")} == {"short", "long"}


def test_a_rule_is_one_entry_of_the_spec(tmp_path: Path) -> None:
    folder = suite(tmp_path)
    spec = folder / "release.yaml"
    document = yaml.safe_load(spec.read_text())
    document["dataset"]["slices"] = ["length"]
    document["gate"] |= {"task": "sentiment.yaml"} | yaml.safe_load(SNIPPETS["rule"])
    spec.write_text(yaml.safe_dump(document))
    (rule,) = policy_of(load_release(spec), "1").slices
    assert (rule.column, rule.value, rule.rule, rule.bound) == ("length", "short", "floor", 0.7)
