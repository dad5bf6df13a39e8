"""A step as a pull request: the repository is real, GitHub is a small server that keeps pull requests as its API shows them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.delivery.change import Change
from serving.delivery.effect import DeliveryFailed
from serving.delivery.github import GitHub, github_of
from serving.delivery.pull_request import PullRequestClosed, PullRequests
from serving.delivery.record import Record
from serving.delivery.repository import Remote, RemoteRefused, Repository
from tests.fix_platform import PlatformRepository, git
from tests.fix_rendered import desired, member

FOLDER, BRANCH, TOKEN = "models/ticket-router", "liftlock/ticket-router/v4", "only-for-tests"
Object = dict[str, Any]


@dataclass
class Forge:
    """What GitHub knows. `react` is what somebody does with a new pull request."""

    repository: PlatformRepository
    api: str = ""
    pulls: list[Object] = field(default_factory=list)
    react: str = "merge"
    authorized: set[str] = field(default_factory=set)

    def open(self, asked: Object) -> Object:
        number = len(self.pulls) + 1
        address = f"https://example.com/pull/{number}"
        pull = {
            "number": number,
            "html_url": address,
            "state": "open",
            "merged_at": None,
            "head": {"sha": "", "ref": asked["head"]},
        }
        self.pulls.append(pull | {"title": asked["title"], "body": asked["body"], "base": {"ref": asked["base"]}})
        if self.react != "wait":
            threading.Timer(0.3, self._decide, (self.pulls[-1],)).start()
        return self.pulls[-1]

    def _decide(self, pull: Object) -> None:
        if self.react == "merge":
            self.merge(pull)
        pull["state"] = "closed"

    def merge(self, pull: Object) -> None:
        """As `Squash and merge` does: one new commit with the pull request's title and text."""
        work = self.repository.work
        git(work, "fetch", "-q", "origin")
        git(work, "reset", "-q", "--hard", "origin/main")
        git(work, "merge", "-q", "--squash", f"origin/{pull['head']['ref']}")
        git(work, "commit", "-q", "-m", f"{pull['title']} (#{pull['number']})")
        git(work, "push", "-q", "origin", "HEAD:main")
        pull["merged_at"] = "2026-11-28T12:00:00Z"


class _Handler(BaseHTTPRequestHandler):
    forge: Forge

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.forge.authorized.add(self.headers["authorization"])
        head = parse_qs(urlsplit(self.path).query)["head"][0].partition(":")[2]
        mine = [pull for pull in self.forge.pulls if pull["head"]["ref"] == head]
        self._answer(mine[::-1][:1])

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            return self._answer({"message": "Bad credentials"}, 401)
        return self._answer(self.forge.open(asked), 201)

    def do_PATCH(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        pull = self.forge.pulls[int(self.path.rpartition("/")[2]) - 1]
        pull |= asked
        self._answer(pull)


@pytest.fixture
def forge(platform_repository: PlatformRepository) -> Iterator[Forge]:
    forge = Forge(platform_repository)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"forge": forge}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    forge.api = f"http://127.0.0.1:{server.server_port}"
    yield forge
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository(platform_repository: PlatformRepository, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "clone", Remote(platform_repository.url))


def change(weight: int) -> Change:
    return Change("ticket-router", Record(desired(weight=weight), member("2")), f"candidate at {weight} %")


def landing(forge: Forge, told: list[str], seconds: float = 30, token: str = TOKEN) -> PullRequests:
    return PullRequests(GitHub(forge.api, "owner/platform", token), BRANCH, seconds, told.append, look_seconds=0.1)


def test_each_step_waits_for_its_own_merge_and_the_base_may_move_meanwhile(
    forge: Forge, repository: Repository
) -> None:
    told: list[str] = []
    for weight in (10, 50):
        forge.repository.push_file(f"other/{weight}.txt", "x\n")
        commit = landing(forge, told).land(repository, FOLDER, change(weight))
        assert commit == git(forge.repository.bare, "rev-parse", "main")
    assert [pull["title"] for pull in forge.pulls] == [f"ticket-router: candidate at {weight} %" for weight in (10, 50)]
    assert "Liftlock-Model: ticket-router" in forge.pulls[0]["body"]
    assert [line.rpartition("/")[2] for line in told] == ["1", "2"]
    assert forge.repository.merges() == ""


def test_a_killed_wait_opens_no_second_pull_request(forge: Forge, repository: Repository) -> None:
    forge.react = "wait"
    with pytest.raises(DeliveryFailed, match="was not merged within 1 s"):
        landing(forge, [], seconds=1).land(repository, FOLDER, change(10))
    head = git(forge.repository.bare, "rev-parse", BRANCH)
    forge.repository.push_file("other.txt", "x\n")
    threading.Timer(0.5, lambda: forge.merge(forge.pulls[0])).start()
    landing(forge, []).land(repository, FOLDER, change(10))
    assert len(forge.pulls) == 1
    assert git(forge.repository.bare, "rev-parse", BRANCH) == head


def test_an_open_pull_request_becomes_the_undo(forge: Forge, repository: Repository) -> None:
    forge.react = "wait"
    with pytest.raises(DeliveryFailed):
        landing(forge, [], seconds=1).land(repository, FOLDER, change(10))
    threading.Thread(target=merge_the_undo, args=(forge,)).start()
    undo = Change("ticket-router", Record(desired(candidate=None, weight=0)), "undo: remove v4")
    landing(forge, []).land(repository, FOLDER, undo)
    assert len(forge.pulls) == 1 and forge.pulls[0]["title"] == "ticket-router: undo: remove v4"


def merge_the_undo(forge: Forge) -> None:
    while "undo" not in forge.pulls[0]["title"]:
        time.sleep(0.05)
    forge.merge(forge.pulls[0])


def test_a_closed_pull_request_is_a_persons_no(forge: Forge, repository: Repository) -> None:
    forge.react = "close"
    with pytest.raises(PullRequestClosed, match=r"pull/1 was closed.*rollout abort"):
        landing(forge, []).land(repository, FOLDER, change(10))


def test_a_bad_token_is_one_sentence_without_the_token(forge: Forge, repository: Repository) -> None:
    with pytest.raises(RemoteRefused, match="401") as refused:
        landing(forge, [], token="wrong-secret").land(repository, FOLDER, change(10))
    assert "wrong-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "api", "name"),
    [
        ("https://github.com/owner/platform.git", "https://api.github.com", "owner/platform"),
        ("git@github.com:owner/platform.git", "https://api.github.com", "owner/platform"),
        ("ssh://git@git.example.com:22/owner/platform", "https://git.example.com/api/v3", "owner/platform"),
    ],
)
def test_the_api_is_found_by_the_repositorys_address(url: str, api: str, name: str) -> None:
    found = github_of(url, TOKEN)
    assert (found.api, found.repository) == (api, name)
    assert TOKEN not in repr(found)


def test_a_repository_elsewhere_has_no_pull_requests() -> None:
    with pytest.raises(RemoteRefused, match="LIFTLOCK_PLATFORM_TOKEN"):
        github_of("/srv/git/platform.git", TOKEN)
