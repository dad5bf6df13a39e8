"""A step as a pull request from the release's own branch, in force once somebody has merged it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.delivery.change import Change
from serving.delivery.effect import DeliveryFailed
from serving.delivery.github import GitHub, PullRequest
from serving.delivery.push import made
from serving.delivery.repository import Repository
from serving.rollout.plan import Blocked


class PullRequestClosed(Blocked):
    """Somebody closed a step's pull request without merging it."""


@dataclass(frozen=True)
class PullRequests:
    """`branch` is the release's. `tell` gets the address of each one that is opened. `seconds` is the patience for one merge."""

    github: GitHub
    branch: str
    seconds: float
    tell: Callable[[str], None]
    look_seconds: float = 5.0

    def land(self, repository: Repository, folder: str, change: Change) -> str:
        """Raises PullRequestClosed, ForeignEdit, RemoteRefused, DeliveryFailed after `seconds`."""
        deadline = time.monotonic() + self.seconds
        asked: PullRequest | None = None
        while time.monotonic() < deadline:
            head = repository.fetch()
            commit = made(repository, head, folder, change)
            if commit is None:
                return repository.last_commit(head, folder) or head
            asked = self._asked(repository, folder, change, commit)
            if asked.state == "closed":
                raise PullRequestClosed(
                    f"{asked.address} was closed without a merge; reopen and merge it, or `liftlock rollout abort {change.model}`"
                )
            time.sleep(self.look_seconds)
        address = asked.address if asked else self.branch
        raise DeliveryFailed(f"{address} was not merged within {self.seconds:.0f} s")

    def _asked(self, repository: Repository, folder: str, change: Change, commit: str) -> PullRequest:
        """The one that proposes this step, merged a moment ago perhaps; it is opened where none does."""
        latest = self.github.latest(self.branch)
        if latest and self._proposes(repository, folder, commit):
            return latest
        repository.push(commit, self.branch, force=True)
        title, _, body = change.message.partition("\n\n")
        if latest and latest.state == "open":
            self.github.describe(latest.number, title, body)
            return latest
        opened = self.github.open(self.branch, repository.remote.branch, title, body)
        self.tell(f"{title}: waiting for {opened.address}")
        return opened

    def _proposes(self, repository: Repository, folder: str, commit: str) -> bool:
        """Whether the branch holds the same files: a pull request is not pushed again because others moved the base."""
        held = repository.fetch_branch(self.branch)
        return held is not None and repository.files(held, folder) == repository.files(commit, folder)
