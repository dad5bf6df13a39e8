"""Every command that the README shows is run: the short ones here as they stand, the long ones by the tests that are named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fix_stack import ROOT, Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(3600)]
RUN_ELSEWHERE = {
    "make release": "test_flows_release.champion",
    "make test": "this run",
    ".venv/bin/liftlock release evals/ticket_router/release-mislabelled.yaml": "test_flows_release",
    ".venv/bin/liftlock release my-model/release.yaml": "test_flows_release.test_a_starting_spec_of_ones_own_runs",
    "make down": "test_flows_release.test_down_leaves_nothing_running_and_up_serves_the_champion_again, by `liftlock down`",
}


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line for block in blocks for line in block.strip().splitlines()]


def test_the_long_commands_are_the_ones_that_other_tests_run() -> None:
    assert set(RUN_ELSEWHERE) <= set(commands())


@pytest.mark.parametrize("command", [command for command in commands() if command not in RUN_ELSEWHERE])
def test_a_command_of_the_readme_runs(command: str, stack: Stack, champion: dict[str, Any], tmp_path: Path) -> None:
    """Folders that a command makes go to a folder of the test's own; the checkout is named by its path there."""
    shown = command.replace(".venv/bin/", f"{ROOT}/.venv/bin/")
    environment = {**stack.environment, "GATEWAY": stack.gateway}
    where = tmp_path if " init " in command else ROOT
    done = subprocess.run(
        ["sh", "-c", shown], capture_output=True, text=True, cwd=where, env=environment, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()
