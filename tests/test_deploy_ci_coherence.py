"""The check of a pull request's manifests, in a real repository: only what changed, from Git objects, without symbolic links."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.fix_coherence import changed, coherent, written

ROOT = Path(__file__).resolve().parent.parent


def git(repo: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=repo, check=True, capture_output=True)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """`main` is coherent; `drain` takes the engine's grace away; `readme` touches no manifest; `link` points out of the repository."""
    place = tmp_path / "repo"
    written(place / "deploy", coherent())
    git(place, "init", "-q", "-b", "main")
    for branch in ("main", "drain", "readme", "link"):
        if branch != "main":
            git(place, "checkout", "-q", "-b", branch, "main")
        if branch == "drain":
            written(place / "deploy", changed(lambda h: h.pod.pop("terminationGracePeriodSeconds")))
        if branch == "readme":
            (place / "README.md").write_text("words\n")
        if branch == "link":
            (place / "deploy" / "out.yaml").symlink_to(tmp_path / "secret.yaml")
        git(place, "add", "-A")
        git(place, "commit", "-q", "-m", branch)
    (tmp_path / "secret.yaml").write_text("a: [\n")
    git(place, "checkout", "-q", "main")
    return place


@pytest.mark.parametrize(
    ("head", "code", "said"),
    [("drain", 3, "drain-short"), ("readme", 0, "touches none"), ("link", 0, "coherent (1 chain from")],
)
def test_a_change_is_checked_before_a_merge(repo: Path, head: str, code: int, said: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LIFTLOCK": str(ROOT / ".venv" / "bin" / "liftlock")}
    argv = ["bash", str(ROOT / "deploy" / "ci" / "coherence.sh"), "main", head, str(tmp_path / "out"), "deploy"]
    done = subprocess.run(argv, cwd=repo, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
    assert said in (tmp_path / "out" / "coherence.txt").read_text()
    if code == 3:
        log = json.loads((tmp_path / "out" / "coherence.sarif").read_text())
        uris = {
            each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in log["runs"][0]["results"]
        }
        assert uris == {"deploy/manifests.yaml"}


def test_arguments_are_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "deploy" / "ci" / "coherence.sh"), "a"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "required BASE HEAD" in done.stderr
