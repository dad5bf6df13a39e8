"""A change in a Git repository: its two commits, the paths between them, and files as a commit has them. Effect (runs git).

Nothing is checked out and no hook runs: files come out of Git's objects into a folder of their own.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

REGULAR = ("100644", "100755")  # modes of plain files; a link could point at a file of this machine


class ChangeUnread(Exception):
    """The repository or one of the two commits cannot be read."""


@dataclass(frozen=True)
class Change:
    """`base` is the merge base, where the change began; all three are full commit ids. `paths` differ, in Git's order."""

    repo: Path
    base: str
    head: str
    paths: tuple[str, ...]


def read_change(repo: Path, base: str, head: str) -> Change:
    """From where `head` left `base` to `head`. Raises ChangeUnread."""
    if not repo.is_dir():
        raise ChangeUnread(f"{repo} is no folder; give the path of a Git repository with --repo")
    tip, last = _commit(repo, base), _commit(repo, head)
    try:
        began = _text(repo, "merge-base", tip, last)
    except ChangeUnread as error:
        raise ChangeUnread(
            f"{base} and {head} have no common commit in {repo}; a shallow clone lacks it: fetch the whole history "
            "(fetch-depth: 0, or git fetch --unshallow)"
        ) from error
    listed = _git(repo, "diff", "--name-only", "--no-renames", "-z", began, last)
    return Change(
        repo, began, last, tuple(path.decode(errors="surrogateescape") for path in listed.split(b"\0") if path)
    )


def list_paths(repo: Path, commit: str) -> tuple[str, ...]:
    listed = _git(repo, "ls-tree", "-r", "--name-only", "-z", commit)
    return tuple(path.decode(errors="surrogateescape") for path in listed.split(b"\0") if path)


def export_tree(repo: Path, commit: str, folder: Path) -> Path:
    """All files of the commit in `folder`, which is made. Links that leave the folder are refused."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(_git(repo, "archive", "--format=tar", commit))) as archive:
        try:
            archive.extractall(folder, filter="data")
        except tarfile.FilterError as error:
            raise ChangeUnread(f"the commit {commit} cannot be unpacked safely: {error}; take the link out") from error
    return folder


def read_plain_file(repo: Path, commit: str, path: str) -> bytes | None:
    """The file's bytes; None where the commit has none there. ChangeUnread where it is a link or a submodule."""
    listed = _git(repo, "ls-tree", "-z", commit, "--", path).decode(errors="surrogateescape").strip("\0")
    if not listed:
        return None
    mode, _, rest = listed.partition(" ")
    if mode not in REGULAR:
        raise ChangeUnread(f"{path} is no plain file in {commit} (mode {mode}); data from a fork must be plain files")
    return _git(repo, "cat-file", "blob", rest.split()[1])


def _commit(repo: Path, name: str) -> str:
    if name.startswith("-"):
        raise ChangeUnread(f"{name!r} is no commit; give a branch, a tag or a commit id")
    try:
        return _text(repo, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except ChangeUnread as error:
        raise ChangeUnread(
            f"{repo} has no commit {name!r}; give a branch, a tag or a commit id that has been fetched"
        ) from error


def _text(repo: Path, *arguments: str) -> str:
    return _git(repo, *arguments).decode().strip()


def _git(repo: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ChangeUnread("git is not on the PATH; install it") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ChangeUnread(f"git {arguments[0]} in {repo}: {said}")
    return done.stdout
