"""docs/cluster.md: every folder that is applied renders, every file that is named exists, every command of ours takes its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from flows.cli import app
from tests.fix_deploy import rendered

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text()
LINES = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
OURS = sorted({line.partition("#")[0].strip() for line in LINES if re.match(r"(LIFTLOCK_\w+=\S+ )?liftlock ", line)})


def test_there_is_something_to_check() -> None:
    assert len(OURS) >= 8 and any("doctor" in line for line in OURS)


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"-k (deploy/[\w/-]+)", TEXT))))
def test_a_folder_that_is_applied_renders(folder: str) -> None:
    assert rendered(ROOT / folder)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bdeploy/[\w/.-]*\w", TEXT))))
def test_what_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_ours_takes_its_options(line: str) -> None:
    """Parsed as it stands; running it would need the cluster."""
    words = line.split("liftlock ", 1)[1].split()
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"no such command: {line}"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"\bLIFTLOCK_[A-Z_]+\b", TEXT))))
def test_a_setting_exists(setting: str) -> None:
    from tasks.settings import Settings

    assert setting.removeprefix("LIFTLOCK_").lower() in Settings.model_fields
