"""The platform's Git repository: read a folder of a branch, commit a folder of files, push. A bare clone with nothing checked out.

A commit is built from objects (a temporary index), so a kill leaves no half-written worktree and no file of others is touched.
The token goes to git in its environment: it stands in no argument, no configuration file and no message.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

AUTHOR = ("Liftlock", "liftlock@localhost")
GIT_SECONDS = 300
NOTHING = "0" * 40  # index-info: the path goes
REJECTED = ("[rejected]", "[remote rejected]", "cannot lock ref", "failed to update ref", "incorrect old value")


class RemoteRefused(ValueError):
    """The address, the branch or the credentials of the platform's repository do not work."""


class PushRejected(Exception):
    """Somebody else pushed in between, or the branch is protected."""


@dataclass(frozen=True)
class Remote:
    """`token` is for https alone. `signing_key` is an SSH private key's file; left out, commits are not signed."""

    url: str
    branch: str = "main"
    token: str = field(default="", repr=False)
    signing_key: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.password or (parts.scheme in ("http", "https") and parts.username):
            raise RemoteRefused(
                "the repository's address holds credentials; take them out and set LIFTLOCK_PLATFORM_TOKEN"
            )
        if self.token and parts.scheme != "https":
            raise RemoteRefused(f"a token is sent over https alone, and {self.url} is not https; leave the token out")
        if self.url.startswith("-") or self.branch.startswith("-"):
            raise RemoteRefused(f"{self.url} {self.branch} is no address and branch")

    @property
    def basic(self) -> str:
        """GitHub's and GitLab's form: any name, and the token as password."""
        return base64.b64encode(f"x-access-token:{self.token}".encode()).decode()

    def without_token(self, text: str) -> str:
        return text.replace(self.basic, "***").replace(self.token, "***") if self.token else text

    def environment(self) -> dict[str, str]:
        """git asks nobody; the token is a header for this host alone."""
        parts = urlsplit(self.url)
        header = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {self.basic}",
        }
        return {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(header if self.token else {})}


@dataclass(frozen=True)
class Repository:
    """`clone` is a folder of Liftlock's own; it is made when first needed."""

    clone: Path
    remote: Remote

    def fetch(self) -> str:
        """The commit that the branch points at now. Raises RemoteRefused."""
        branch = self.remote.branch
        try:
            return self._fetch(branch)
        except subprocess.CalledProcessError as error:
            raise RemoteRefused(
                f"cannot read branch {branch} of {self.remote.url}: {self._said(error)}; check LIFTLOCK_PLATFORM_REPOSITORY, "
                "the branch and the credentials"
            ) from None

    def fetch_branch(self, branch: str) -> str | None:
        """Of another branch; None where there is none."""
        try:
            return self._fetch(branch)
        except subprocess.CalledProcessError:
            return None

    def _fetch(self, branch: str) -> str:
        if not (self.clone / "HEAD").exists():
            self.clone.mkdir(parents=True, exist_ok=True)
            self._git("init", "--bare", "--quiet", ".")
        self._git("fetch", "--quiet", "--no-tags", self.remote.url, f"+refs/heads/{branch}:refs/remotes/{branch}")
        return self._git("rev-parse", f"refs/remotes/{branch}").strip()

    def knows(self, commit: str) -> bool:
        return self._succeeds("cat-file", "-e", f"{commit}^{{commit}}")

    def files(self, commit: str, folder: str) -> dict[str, str]:
        """Text by path below the folder; empty where it does not exist."""
        blobs = self._blobs(commit, folder)
        asked = "".join(f"{blob}\n" for blob in blobs.values())
        rest = self._run("cat-file", "--batch", stdin=asked) if blobs else b""
        found = {}
        for path in blobs:
            head, _, rest = rest.partition(b"\n")
            size = int(head.split()[2])
            found[path.removeprefix(f"{folder}/")], rest = rest[:size].decode(errors="replace"), rest[size + 1 :]
        return found

    def _blobs(self, commit: str, folder: str) -> dict[str, str]:
        """Blob by path from the root."""
        listed = self._git("ls-tree", "-r", "-z", commit, "--", f"{folder}/").split("\0")
        pairs = (line.partition("\t") for line in listed if line)
        return {path: about.split()[2] for about, _, path in pairs}

    def commit(self, base: str, folder: str, files: Mapping[str, str], message: str) -> str:
        """A commit on `base` in which the folder holds exactly these files. Nothing is pushed."""
        held = self._blobs(base, folder)
        lines = [f"0 {NOTHING}\t{path}" for path in held]
        for name, text in sorted(files.items()):
            path, blob = f"{folder}/{name}", blob_of(text)
            if held.get(path) != blob:  # most files of a step are as they were
                blob = self._git("hash-object", "-w", "--stdin", stdin=text).strip()
            lines.append(f"100644 {blob}\t{path}")
        with tempfile.TemporaryDirectory(dir=self.clone) as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            self._git("read-tree", base, more=index)
            self._git("update-index", "-z", "--index-info", stdin="".join(f"{line}\0" for line in lines), more=index)
            tree = self._git("write-tree", more=index).strip()
        sign = ("-S",) if self.remote.signing_key else ()
        return self._git("commit-tree", *sign, "-p", base, "-F", "-", tree, stdin=message).strip()

    def push(self, commit: str, branch: str, *, force: bool = False) -> None:
        """Raises PushRejected where the branch has moved, RemoteRefused for the rest."""
        try:
            self._git("push", "--porcelain", self.remote.url, f"{'+' if force else ''}{commit}:refs/heads/{branch}")
        except subprocess.CalledProcessError as error:
            said = self._said(error)
            if any(word in said for word in REJECTED):
                raise PushRejected(said) from None
            raise RemoteRefused(f"cannot push to {branch} of {self.remote.url}: {said}") from None

    def last_commit(self, commit: str, folder: str, message: str = "") -> str | None:
        """The newest one up to `commit` that touches the folder, with this line in its message."""
        grep = ("--fixed-strings", f"--grep={message}") if message else ()
        return self._git("log", "-1", "--format=%H", *grep, commit, "--", folder).strip() or None

    def who(self, commit: str) -> str:
        return self._git("log", "-1", "--format=%h of %an, %aI: %s", commit).strip()

    def contains(self, later: str, earlier: str) -> bool:
        """Whether `earlier` is `later` or before it; False where one is not known here."""
        return self._succeeds("merge-base", "--is-ancestor", earlier, later)

    def _succeeds(self, *arguments: str) -> bool:
        argv = self._argv(*arguments)
        return subprocess.run(argv, cwd=self.clone, capture_output=True, env=self.remote.environment()).returncode == 0

    def _argv(self, *arguments: str) -> list[str]:
        name, mail = AUTHOR
        options = {
            "user.name": name, "user.email": mail, "core.hooksPath": os.devnull, "gc.auto": "0", "commit.gpgSign": "false",
        }  # fmt: skip
        if self.remote.signing_key:
            options |= {"gpg.format": "ssh", "user.signingKey": str(self.remote.signing_key)}
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return ["git", *settings, *arguments]

    def _git(self, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None) -> str:
        return self._run(*arguments, stdin=stdin, more=more).decode(errors="replace")

    def _run(self, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None) -> bytes:
        """Raises CalledProcessError, whose text may hold what git said of the remote."""
        environment = {**self.remote.environment(), **(more or {})}
        done = subprocess.run(
            self._argv(*arguments), cwd=self.clone, input=stdin.encode(), capture_output=True, check=True,
            env=environment, timeout=GIT_SECONDS,
        )  # fmt: skip
        return done.stdout

    def _said(self, error: subprocess.CalledProcessError) -> str:
        return self.remote.without_token(
            (error.stdout + error.stderr).decode(errors="replace").strip().replace("\n", " ")
        )[:600]


def blob_of(text: str) -> str:
    """Git's name of a file with this text, in a repository of SHA-1."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
