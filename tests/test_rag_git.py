"""Documents from Git with the real git: a hostile checkout runs nothing, and a repository's address becomes a copy."""

import subprocess
from pathlib import Path

import pytest

from rag.corpus import find_files
from rag.git import CorpusRepositoryError, Repository, copy_repository, parse_address, tracked_files
from tests.fix_git_https import serving_git


def git(folder: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "handbook"
    made.mkdir()
    git(made, "init", "-q", "-b", "main")
    (made / "a.md").write_text("first")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "one")
    return made


@pytest.mark.parametrize("key", ["core.fsmonitor", "core.hooksPath", "core.sshCommand", "core.pager", "alias.ls-files"])
def test_a_checkouts_own_configuration_runs_no_program(repository: Path, tmp_path: Path, key: str) -> None:
    trap, proof = tmp_path / "hooks" / "post-index-change", tmp_path / "ran"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch '{proof}'\n")
    trap.chmod(0o755)
    git(
        repository,
        "config",
        key,
        f"!{trap}" if key.startswith("alias") else str(trap.parent if "hooks" in key else trap),
    )
    assert tracked_files(repository) == [repository / "a.md"]
    assert not proof.exists()


def test_the_trap_of_that_test_springs_without_the_guard(repository: Path, tmp_path: Path) -> None:
    trap, proof = tmp_path / "trap", tmp_path / "ran"
    trap.write_text(f"#!/bin/sh\ntouch '{proof}'\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    git(repository, "ls-files", "--others")
    assert proof.exists()


def test_a_missing_object_is_not_fetched(repository: Path, tmp_path: Path) -> None:
    trap, proof = tmp_path / "trap", tmp_path / "ran"
    trap.write_text(f"#!/bin/sh\ntouch '{proof}'\n")
    trap.chmod(0o755)
    (repository / ".gitignore").write_text("x\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "two")
    for key, value in {
        "extensions.partialClone": "origin", "remote.origin.promisor": "true", "remote.origin.url": f"ext::{trap}",
        "protocol.ext.allow": "always", "core.repositoryFormatVersion": "1",
    }.items():  # fmt: skip
        git(repository, "config", key, value)
    blob = git(repository, "rev-parse", "HEAD:.gitignore").strip()
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    (repository / ".gitignore").unlink()
    tracked_files(repository)
    assert not proof.exists()


def test_links_are_no_documents(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("outside")
    (repository / "link.md").symlink_to(tmp_path / "secret.md")
    git(repository, "add", "-A")
    assert [file.source for file in find_files([repository], repository)] == ["a.md"]
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "own.md").write_text("own")
    (plain / "link.md").symlink_to(tmp_path / "secret.md")
    assert [file.source for file in find_files([plain], tmp_path)] == ["plain/own.md"]


def test_a_folder_that_became_a_link_leads_nowhere(repository: Path, tmp_path: Path) -> None:
    (repository / "deep").mkdir()
    (repository / "deep" / "b.md").write_text("own")
    git(repository, "add", "-A")
    (repository / "deep" / "b.md").unlink()
    (repository / "deep").rmdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.md").write_text("secret")
    (repository / "deep").symlink_to(tmp_path / "outside")
    assert "deep/b.md" in git(repository, "ls-files")
    assert tracked_files(repository) == [repository / "a.md"]


def test_filters_submodules_and_hooks_of_a_hostile_repository_run_nothing(repository: Path, tmp_path: Path) -> None:
    trap, proof = tmp_path / "trap", tmp_path / "ran"
    trap.write_text(f"#!/bin/sh\ntouch '{proof}'\ncat\n")
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / ".gitmodules").write_text(f'[submodule "x"]\npath = x\nurl = ext::{trap}\nupdate = !{trap}\n')
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "two")
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        (repository / ".git" / "hooks" / hook).write_bytes(trap.read_bytes())
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    keys = ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "uploadpack.packObjectsHook")
    for key in (*keys, "core.fsmonitor"):
        git(repository, "config", key, str(trap))
    proof.unlink(missing_ok=True)  # setting the traps up may have sprung some
    assert repository / "a.md" in (tracked_files(repository) or [])
    copy = copy_repository(Repository(repository.as_uri(), ""), tmp_path / "corpora")
    assert [file.source for file in find_files([copy], copy)] == ["a.md"]
    assert not proof.exists()


@pytest.mark.parametrize("text", ["docs", "./a:b", "/srv/docs", "C:docs", "ext::sh -c true", "-u", "host:path"])
def test_a_path_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "url", "ref"),
    [
        ("https://git.example.com/team/docs.git", "https://git.example.com/team/docs.git", ""),
        ("https://git.example.com/team/docs.git#v2", "https://git.example.com/team/docs.git", "v2"),
        ("git@git.example.com:team/docs.git#main", "git@git.example.com:team/docs.git", "main"),
        ("ssh://git@git.example.com/docs", "ssh://git@git.example.com/docs", ""),
    ],
)
def test_addresses(text: str, url: str, ref: str) -> None:
    assert parse_address(text) == Repository(url, ref)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://git.example.com/docs", "http:// is not taken; required is https, ssh, file"),
        ("ext://sh/docs", "ext:// is not taken"),
        ("https://user:hunter2@git.example.com/docs", "the address holds a password"),
        ("file:///srv/docs#--upload-pack=x", "begins with a dash"),
        ("ssh://-oProxyCommand=x/docs", "begins with a dash"),
    ],
)
def test_what_git_could_misread_is_refused(text: str, message: str) -> None:
    with pytest.raises(CorpusRepositoryError, match=message) as refused:
        parse_address(text)
    assert "hunter2" not in str(refused.value)


def test_a_copy_follows_its_repository_and_is_kept_while_nothing_changed(repository: Path, tmp_path: Path) -> None:
    address, into = Repository(repository.as_uri(), ""), tmp_path / "corpora"
    copy = copy_repository(address, into)
    assert [file.source for file in find_files([copy], copy)] == ["a.md"]
    made = copy.stat().st_ino
    assert copy_repository(address, into).stat().st_ino == made
    (repository / "b.md").write_text("second")
    git(repository, "rm", "-q", "a.md")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "two")
    copy = copy_repository(address, into)
    assert [file.source for file in find_files([copy], copy)] == ["b.md"]
    assert [one.name for one in into.iterdir()] == [copy.name]


def test_a_repository_is_copied_over_https_and_an_unknown_certificate_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    with serving_git(tmp_path, tmp_path) as (url, certificate):
        address = parse_address(f"{url}/handbook/.git#main")
        assert address is not None
        with pytest.raises(CorpusRepositoryError, match="certificate"):
            copy_repository(address, tmp_path / "corpora")
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
        copy = copy_repository(address, tmp_path / "corpora")
        assert [file.source for file in find_files([copy], copy)] == ["a.md"]
        absent = parse_address(f"{url}/nothing")
        assert absent is not None
        with pytest.raises(CorpusRepositoryError, match="not found"):
            copy_repository(absent, tmp_path / "corpora")


def test_ssh_that_nobody_answers_is_told_in_words_and_asks_nobody(tmp_path: Path) -> None:
    address = parse_address("ssh://git@127.0.0.1:9/docs")
    assert address is not None
    with pytest.raises(CorpusRepositoryError, match="git clone failed"):
        copy_repository(address, tmp_path / "corpora")


def test_a_branch_has_a_copy_of_its_own(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-qb", "draft")
    (repository / "c.md").write_text("draft")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "draft")
    main, draft = (
        copy_repository(Repository(repository.as_uri(), ref), tmp_path / "corpora") for ref in ("main", "draft")
    )
    assert main != draft
    assert not (main / "c.md").exists()
    assert (draft / "c.md").read_text() == "draft"


def test_what_is_not_there_is_told_and_leaves_the_copy(repository: Path, tmp_path: Path) -> None:
    address, into = Repository(repository.as_uri(), ""), tmp_path / "corpora"
    copy = copy_repository(address, into)
    repository.rename(tmp_path / "away")
    with pytest.raises(CorpusRepositoryError, match="ls-remote failed"):
        copy_repository(address, into)
    assert (copy / "a.md").read_text() == "first"
    with pytest.raises(CorpusRepositoryError, match="clone failed"):
        copy_repository(Repository((tmp_path / "none").as_uri(), ""), into)
    assert [one.name for one in into.iterdir()] == [copy.name]


def test_a_link_in_a_repository_leads_nowhere_in_its_copy(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("outside")
    (repository / "link.md").symlink_to(tmp_path / "secret.md")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "link")
    copy = copy_repository(Repository(repository.as_uri(), ""), tmp_path / "corpora")
    assert not (copy / "link.md").is_symlink()
    assert "outside" not in (copy / "link.md").read_text()
