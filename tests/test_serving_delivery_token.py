"""The token of the platform's repository: it opens a real server over https, and stands in nothing that is kept or shown."""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.delivery.change import Change
from serving.delivery.push import Push
from serving.delivery.record import Record
from serving.delivery.repository import Remote, RemoteRefused, Repository
from tests.fix_canaries import Search
from tests.fix_git_https import serving_git
from tests.fix_platform import PlatformRepository, git
from tests.fix_rendered import desired, member

TOKEN = f"canary-{secrets.token_hex(16)}"
BASIC = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
FOLDER = "models/ticket-router"
RECORDING = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
exec {git} "$@"
"""


@dataclass(frozen=True)
class Server:
    """`arguments` is the file with the arguments of every git that ran."""

    url: str
    bare: Path
    arguments: Path


@pytest.fixture
def server(
    platform_repository: PlatformRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    bare, log, bin_folder = platform_repository.bare, tmp_path / "arguments.log", tmp_path / "bin"
    git(bare, "config", "http.receivepack", "true")
    bin_folder.mkdir()
    wrapper = bin_folder / "git"
    wrapper.write_text(RECORDING.format(log=log, git=shutil.which("git")))
    wrapper.chmod(0o755)
    with serving_git(bare.parent, tmp_path, f"Basic {BASIC}") as (url, certificate):
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
        monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
        yield Server(f"{url}/{bare.name}", bare, log)


def land(clone: Path, server: Server, token: str) -> str:
    repository = Repository(clone, Remote(server.url, token=token))
    change = Change("ticket-router", Record(desired(weight=10), member("2")), "candidate at 10 %", ("40 requests",))
    return Push().land(repository, FOLDER, change)


def test_a_commit_pushed_with_the_token_holds_it_nowhere(server: Server, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    commit = land(clone, server, TOKEN)
    assert git(server.bare, "rev-parse", "main") == commit
    search = Search({"token": TOKEN, "header": BASIC})
    search.folder(clone)
    for folder in (clone, server.bare):  # objects are compressed in their files
        objects = ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch"]
        search.look(str(folder), subprocess.run(objects, capture_output=True, check=True).stdout)
    search.file(server.arguments, "arguments")
    assert "push" in server.arguments.read_text() and search.looked > 10
    assert search.found == set()


@pytest.mark.parametrize("token", ["", f"canary-{secrets.token_hex(16)}"], ids=["none", "another"])
def test_a_wrong_token_is_one_sentence_without_it(server: Server, tmp_path: Path, token: str) -> None:
    with pytest.raises(
        RemoteRefused, match="check LIFTLOCK_PLATFORM_REPOSITORY, the branch and the credentials"
    ) as refused:
        land(tmp_path / "clone", server, token)
    search = Search({"token": token or TOKEN})
    search.look("the refusal", str(refused.value).encode())
    search.folder(tmp_path / "clone")
    assert search.found == set()
