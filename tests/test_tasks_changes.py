"""A change by a stranger: what its names, links, attributes and the repository's configuration hold is data, and none of it acts."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.changes import ChangeUnread, export_tree, list_paths, read_change, read_plain_file
from tests.fix_change import GIT

ODD = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "; touch PWNED",
    "--upload-pack=touch PWNED",
    "a\nb",
    "a\tb",
    'q"uote',
    "*",
    "ümläut",
    ":(glob)x",
    "-rf",
]


class Repository:
    """`base` is its first commit. `write` commits files by path; a Path is a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.base = self.write({"README.md": b"one\n"})

    def git(self, *arguments: str, asked: bytes = b"") -> str:
        argv = ["git", "-C", str(self.folder), *arguments]
        done = subprocess.run(argv, input=asked, capture_output=True, env=GIT, check=True)
        return done.stdout.decode().strip()

    def write(self, files: dict[str, bytes | Path]) -> str:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
        if files:
            self.git("--literal-pathspecs", "add", "--", *files)
        self.git("commit", "-q", "-m", "a better prompt")
        return self.git("rev-parse", "HEAD")

    def crafted(self, name: str, mode: str = "100644", content: bytes = b"evil") -> str:
        """A commit of one entry that no `git add` would make: its tree is written byte by byte."""
        blob = self.git("hash-object", "-w", "--stdin", asked=content)
        entry = f"{mode} {name}\0".encode() + bytes.fromhex(blob)
        tree = self.git("hash-object", "-w", "--stdin", "--literally", "-t", "tree", asked=entry)
        return self.git("commit-tree", tree, "-p", self.base, "-m", "crafted")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_names_that_a_shell_or_git_would_read_are_names(repository: Repository, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"suites/{name}": name.encode() for name in ODD}
    head = repository.write(files)
    change = read_change(repository.folder, repository.base, head)
    assert sorted(change.paths) == sorted(files)
    tree = export_tree(repository.folder, head, tmp_path / "head")
    for path, content in files.items():
        assert (tree / path).read_bytes() == content
        assert read_plain_file(repository.folder, head, path) == content
    assert not [one for one in tmp_path.rglob("*") if one.name == "PWNED"]


@pytest.mark.parametrize(
    "attribute",
    ["export-subst", "export-ignore", "text eol=crlf", "working-tree-encoding=UTF-16", "ident", "filter=evil"],
)
def test_the_gate_sees_the_bytes_that_are_merged(repository: Repository, tmp_path: Path, attribute: str) -> None:
    """With export-subst the judged prompt would hold the commit's message, and the served one would not."""
    content = b"system: $Format:%s$ $Id$\nuser: x\n"
    repository.git("config", "filter.evil.smudge", f"touch {tmp_path}/PWNED")
    repository.write({"prompt.yaml": content})
    head = repository.write({".gitattributes": f"prompt.yaml {attribute}\n".encode()})
    assert (export_tree(repository.folder, head, tmp_path / "head") / "prompt.yaml").read_bytes() == content
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "../../outside", "sub/../../../outside"])
def test_a_link_that_leads_out_is_refused(repository: Repository, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("secret")
    head = repository.write({"data.jsonl": Path(target)})
    with pytest.raises(ChangeUnread, match="cannot be unpacked safely"):
        export_tree(repository.folder, head, tmp_path / "head")
    with pytest.raises(ChangeUnread, match="is no plain file"):
        read_plain_file(repository.folder, head, "data.jsonl")


def test_a_link_inside_is_one_and_a_program_may_be_run(repository: Repository, tmp_path: Path) -> None:
    head = repository.write({"sub/a.txt": b"a", "b.txt": Path("sub/a.txt"), "run.sh": b"#!/bin/sh\n"})
    repository.git("update-index", "--chmod=+x", "run.sh")
    head = repository.write({})
    tree = export_tree(repository.folder, head, tmp_path / "head")
    assert (tree / "b.txt").read_text() == "a" and (tree / "b.txt").is_symlink()
    assert os.access(tree / "run.sh", os.X_OK) and not os.access(tree / "sub" / "a.txt", os.X_OK)
    assert sorted(list_paths(repository.folder, head)) == ["README.md", "b.txt", "run.sh", "sub/a.txt"]


@pytest.mark.parametrize("name", ["..", "../escaped", "a/../../escaped", "/absolute-liftlock-test"])
def test_a_crafted_tree_writes_nothing_outside(repository: Repository, tmp_path: Path, name: str) -> None:
    head = repository.crafted(name)
    with suppress(ChangeUnread):
        export_tree(repository.folder, head, tmp_path / "work" / "head")
    outside = {
        one for one in tmp_path.rglob("*") if one.is_file() and not one.is_relative_to(tmp_path / "work" / "head")
    }
    assert not [one for one in outside if one.read_bytes() == b"evil" and ".git" not in one.parts]
    assert not Path("/absolute-liftlock-test").exists()


def test_the_repositorys_own_configuration_and_hooks_run_nothing(repository: Repository, tmp_path: Path) -> None:
    head = repository.write({"a.txt": b"a"})
    trap = f"touch {tmp_path}/PWNED"
    for key in (
        "core.fsmonitor",
        "diff.external",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "uploadpack.packObjectsHook",
        "tar.tar.command",
    ):
        repository.git("config", key, trap)
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        hook = repository.folder / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{trap}\n")
        hook.chmod(0o755)
    assert read_change(repository.folder, repository.base, head).paths == ("a.txt",)
    export_tree(repository.folder, head, tmp_path / "head")
    assert not (tmp_path / "PWNED").exists()
