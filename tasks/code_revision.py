"""Which code made a release: the commit of this checkout, or, where files differ from it, the sha256 of the sources."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from functools import cache

from serving.modelcar.attest import Material
from tasks.settings import ROOT

PACKAGES = ("evals", "flows", "rag", "serving", "tasks")


@cache
def code_revision() -> Material:
    """Once a process: the code does not change under a running release."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *PACKAGES)
    if commit and changed == "":
        return Material("code", "gitCommit", commit)
    digest = hashlib.sha256()
    for path in sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return Material("code", "sha256", digest.hexdigest())


def version_of_liftlock() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _git(*arguments: str) -> str | None:
    """None where there is no git, or this is no checkout of it."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
