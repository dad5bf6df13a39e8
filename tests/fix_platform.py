"""The platform's Git repository served by git daemon on loopback, and somebody else who pushes into it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fix_api_server import find_program, running
from tests.fix_cluster import wait_for_port
from tests.fix_envoy import free_ports

SOMEBODY = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *SOMEBODY, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class PlatformRepository:
    """`bare` is the repository itself, `url` how others reach it."""

    bare: Path
    url: str
    work: Path

    def push_file(self, path: str, text: str, message: str = "Something else") -> str:
        """By somebody else, on top of whatever is there; returns the commit."""
        git(self.work, "fetch", "-q", "origin")
        git(self.work, "reset", "-q", "--hard", "origin/main")
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        git(self.work, "add", "--all")
        git(self.work, "commit", "-q", "-m", message)
        git(self.work, "push", "-q", "origin", "HEAD:main")
        return git(self.work, "rev-parse", "HEAD")

    def revert_last(self) -> None:
        git(self.work, "fetch", "-q", "origin")
        git(self.work, "reset", "-q", "--hard", "origin/main")
        git(self.work, "revert", "--no-edit", "HEAD")
        git(self.work, "push", "-q", "origin", "HEAD:main")

    def subjects(self, branch: str = "main") -> list[str]:
        """Oldest first."""
        return git(self.bare, "log", "--reverse", "--format=%s", branch).splitlines()

    def merges(self) -> str:
        return git(self.bare, "log", "--merges", "--format=%H", "main")

    def message(self, commit: str = "main") -> str:
        return git(self.bare, "log", "-1", "--format=%B", commit)

    def show(self, path: str) -> str:
        return git(self.bare, "show", f"main:{path}")

    def paths(self, commit: str) -> set[str]:
        """What one commit changed."""
        return set(git(self.bare, "show", "--name-only", "--format=", commit).splitlines())


@pytest.fixture
def platform_repository(tmp_path: Path) -> Iterator[PlatformRepository]:
    with running_platform(tmp_path) as platform:
        yield platform


@contextmanager
def running_platform(folder: Path) -> Iterator[PlatformRepository]:
    """With a README on main, served over git://."""
    find_program("git")
    base, (port,) = folder / "git", free_ports(1)
    bare, work = base / "platform.git", folder / "somebody"
    git(folder, "init", "-q", "--bare", "--initial-branch=main", str(bare))
    git(folder, "clone", "-q", str(bare), str(work))
    (work / "README.md").write_text("The platform.\n")
    git(work, "add", "README.md")
    git(work, "commit", "-q", "-m", "Begin")
    git(work, "push", "-q", "origin", "HEAD:main")
    daemon = [
        "git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={base}", "--export-all",
        "--enable=receive-pack", "--reuseaddr", "--informative-errors",
    ]  # fmt: skip
    with running(daemon, folder / "daemon.log"):
        wait_for_port(port)
        yield PlatformRepository(bare, f"git://127.0.0.1:{port}/platform.git", work)
