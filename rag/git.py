"""Documents from Git: what a checkout tracks, and a copy of a repository by its address.

A checkout is somebody else's: its own configuration can name programs (`core.fsmonitor`, hooks, `core.sshCommand` for a
missing object), and git runs them even to list files. So listing overrides them and may reach no network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROTOCOLS = ("https", "ssh", "file")
CLONE_SECONDS = 600
_INERT = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.sshCommand=false")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[\w.-]+@[\w.-]+:")
_KEPT = ("GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")


class CorpusRepositoryError(Exception):
    """An address that is refused, or a repository that cannot be read."""


@dataclass(frozen=True)
class Repository:
    """A repository's address; `ref` is a branch or tag, and the server's own choice where it is empty."""

    url: str
    ref: str

    @property
    def folder(self) -> str:
        """A name for its copy: readable, and another for another address or ref."""
        name = re.sub(r"[^\w.-]", "-", self.url.rstrip("/").rpartition("/")[2].removesuffix(".git")).lstrip(".-")
        return f"{name or 'repository'}-{hashlib.sha256(f'{self.url}#{self.ref}'.encode()).hexdigest()[:8]}"


def parse_address(text: str) -> Repository | None:
    """`URL` or `URL#REF`; None where it is a path. Raises CorpusRepositoryError for a protocol or a ref that is not taken."""
    if not _ADDRESS.match(text):
        return None
    url, _, ref = text.partition("#")
    try:
        parts = urlsplit(url) if "://" in url else None
    except ValueError as error:
        raise CorpusRepositoryError(f"{url[:100]} is no address ({error}); give https://HOST/PATH, say") from None
    if parts and parts.scheme not in PROTOCOLS:
        raise CorpusRepositoryError(
            f"{parts.scheme}:// is not taken; required is {', '.join(PROTOCOLS)} or user@host:path"
        )
    if parts and parts.password:
        raise CorpusRepositoryError("the address holds a password, which logs would keep; use git's credential helper")
    if ref.startswith("-") or (parts and parts.hostname and parts.hostname.startswith("-")):
        raise CorpusRepositoryError(f"{ref or url} begins with a dash, which git would read as an option")
    return Repository(url, ref)


def tracked_files(folder: Path) -> list[Path] | None:
    """What a checkout tracks or would track, without symbolic links; None where git cannot tell."""
    argv = ["git", *_INERT, "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, capture_output=True, check=False, env=_environment(protocols=()))
    if done.returncode:
        return None
    files = [folder / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    inside = {place: _without_links(place, folder) for place in {file.parent for file in files}}
    return [file for file in files if inside[file.parent] and not file.is_symlink()]


def _without_links(place: Path, folder: Path) -> bool:
    """Whether no link lies between: an index may list d/a.md where d is a link out of the tree."""
    return place.resolve() == folder.resolve() / place.relative_to(folder)


def copy_repository(repository: Repository, into: Path) -> Path:
    """The newest commit of a repository as a folder below `into`; fetched only if the server has another one than the copy.

    Raises CorpusRepositoryError. A copy that was there stays whole until the new one is.
    """
    copy = into / repository.folder
    if copy.is_dir() and _there(repository) == _git("-C", str(copy), "rev-parse", "HEAD").strip():
        return copy
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".") as place:
        fresh = Path(place) / "fresh"
        branch = ("--branch", repository.ref) if repository.ref else ()
        _git("clone", "-q", "--depth=1", "--no-tags", "--template=", *branch, "--", repository.url, str(fresh))
        if copy.exists():
            shutil.move(copy, Path(place) / "old")
        fresh.rename(copy)
    return copy


def _there(repository: Repository) -> str:
    """The commit that the server has."""
    return _git("ls-remote", "--exit-code", "--", repository.url, repository.ref or "HEAD").partition("\t")[0]


def _git(*arguments: str) -> str:
    """No symbolic links: a link's file would hold its target's name. Raises CorpusRepositoryError."""
    argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false", *arguments]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=CLONE_SECONDS, env=_environment(PROTOCOLS), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CorpusRepositoryError(f"git {arguments[0]} did not end in {CLONE_SECONDS} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CorpusRepositoryError(f"git {arguments[0]} failed: {said[-1] if said else f'exit {done.returncode}'}")
    return done.stdout


def _environment(protocols: tuple[str, ...]) -> dict[str, str]:
    """Nothing of a surrounding git (GIT_DIR in a hook), nobody is asked for a password, and only these protocols."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT}
    return {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        **own,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none",
    }
