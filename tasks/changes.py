"""A change in a Git repository: its two commits, the paths between them, and files as a commit has them. Effect (runs git).

Nothing is checked out and no hook runs: files come out of Git's objects into a folder of their own.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINK = "120000"
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
    """All files of the commit in `folder`, which is made, byte by byte as Git keeps them. Links that leave the folder are refused.

    No `git archive`: it obeys the commit's own .gitattributes, with which a change could show the gate other bytes than it merges
    (export-subst, export-ignore, eol, working-tree-encoding).
    """
    folder.mkdir(parents=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in _members(repo, commit):
            archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        try:
            archive.extractall(folder, filter="data")
        except (tarfile.FilterError, OSError) as error:
            raise ChangeUnread(f"the commit {commit} cannot be unpacked safely: {error}; take that file out") from error
    return folder


def _members(repo: Path, commit: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Files and links; a submodule's content is another repository's."""
    lines = _git(repo, "ls-tree", "-r", "-z", commit).decode(errors="surrogateescape").split("\0")
    entries = [(*about.split(), path) for about, _, path in (line.partition("\t") for line in lines if line)]
    blobs = [(mode, name, path) for mode, kind, name, path in entries if kind == "blob"]
    kept = _git(repo, "cat-file", "--batch", asked="".join(f"{name}\n" for _, name, _ in blobs).encode())
    at = 0
    for mode, _, path in blobs:
        begin = kept.index(b"\n", at) + 1
        end = begin + int(kept[at:begin].split()[2])
        content, at = kept[begin:end], end + 1
        member = tarfile.TarInfo(path)
        if mode == LINK:
            member.type, member.linkname = tarfile.SYMTYPE, content.decode(errors="surrogateescape")
            yield member, b""
        else:
            member.size, member.mode = len(content), 0o755 if mode == REGULAR[1] else 0o644
            yield member, content


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


def _git(repo: Path, *arguments: str, asked: bytes | None = None) -> bytes:
    """`asked` is what it reads from standard input."""
    try:
        done = subprocess.run(["git", "-C", str(repo), *arguments], input=asked, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ChangeUnread("git is not on the PATH; install it") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ChangeUnread(f"git {arguments[0]} in {repo}: {said}")
    return done.stdout
