"""What a team copies into its CI: the workflow's pins and permissions, and the script's exit code and files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from evals.gate_markdown import MARKER
from tests.fix_stack import ROOT, Stack

CI = ROOT / "deploy" / "ci"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return dict(YAML(typ="safe").load((CI / "eval-gate.yml").read_text()))


def test_every_action_is_pinned_by_a_commit_with_its_release(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+(/[a-z]+)?@[0-9a-f]{40}", name) for name in used)
    noted = re.findall(r"uses: \S+ # v\d+\.\d+\.\d+\n", (CI / "eval-gate.yml").read_text())
    assert len(noted) == len(used)


def test_the_job_that_asks_cannot_write_and_the_one_that_writes_does_not_ask(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {}
    assert workflow["jobs"]["gate"]["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["comment"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert not any("liftlock" in step.get("run", "") for step in workflow["jobs"]["comment"]["steps"])


def test_the_head_is_never_checked_out_nor_written_into_a_command(workflow: dict[str, Any]) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step["with"]["ref"] for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert set(checkouts) == {"${{ github.event.pull_request.base.sha }}"}
    assert not any("${{" in step.get("run", "") for step in steps)


def test_a_forks_run_gets_the_option_and_keeps_nothing(workflow: dict[str, Any]) -> None:
    gate = workflow["jobs"]["gate"]
    assert "--fork" in gate["env"]["FORK"]
    (save,) = [step for step in gate["steps"] if "cache/save" in step.get("uses", "")]
    assert "env.FORK == ''" in save["if"]


def test_the_scripts_are_bash(tmp_path: Path) -> None:
    for script in ("eval-gate.sh", "comment.sh"):
        assert subprocess.run(["bash", "-n", str(CI / script)], check=False).returncode == 0
        assert (CI / script).stat().st_mode & 0o111


def test_the_script_hands_on_the_gates_code_and_says_where_there_is_no_verdict(tmp_path: Path) -> None:
    """An older comment and an older report must not stay and look like this run's."""
    (tmp_path / "junit.xml").write_text("old")
    done = subprocess.run(
        ["bash", str(CI / "eval-gate.sh"), "main", "HEAD", str(tmp_path), "--repo", str(tmp_path / "gone")],
        capture_output=True,
        text=True,
        env=Stack(tmp_path / "state").environment | {"LIFTLOCK_VLLM_URL": "http://127.0.0.1:9"},
        check=False,
    )
    assert done.returncode == 2
    assert "is no folder" in done.stderr
    assert (tmp_path / "comment.md").read_text().startswith(f"{MARKER}\n")
    assert "no verdict" in (tmp_path / "comment.md").read_text()
    assert not (tmp_path / "junit.xml").exists()
    usage = subprocess.run(["bash", str(CI / "eval-gate.sh"), "main"], capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and "required BASE HEAD OUTPUT_FOLDER" in usage.stderr
