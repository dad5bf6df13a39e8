"""The smallest release.yaml, the files that it names, and what a wrong one is refused with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.spec import Release, SpecInvalid, load_release

SMALL = """\
name: a-model
base_model: some-model
dataset:
  train: data/train.jsonl
  test: data/test.jsonl
gate:
  task: task.yaml
  prompt: prompt.yaml
"""  # eight lines: what a test adds begins in line 9


def fill(folder: Path) -> Path:
    """The files that SMALL names; what is in them is not read with the spec."""
    (folder / "data").mkdir()
    for name in ("data/train.jsonl", "data/test.jsonl", "task.yaml", "prompt.yaml"):
        (folder / name).write_text("\n")
    return folder


def load(folder: Path, text: str | bytes) -> Release:
    file = folder / "release.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_release(file)


def refusal(folder: Path, text: str | bytes) -> list[str]:
    """The lines of the message, without the folder's path."""
    with pytest.raises(SpecInvalid) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()
