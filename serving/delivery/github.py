"""GitHub's API for pull requests, as far as a release needs it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from serving.delivery.repository import RemoteRefused

ADDRESS = re.compile(
    r"(?:https://|ssh://git@|git@)(?P<host>[\w.-]+)(?::\d+)?[:/](?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


@dataclass(frozen=True)
class PullRequest:
    number: int
    address: str
    state: Literal["open", "merged", "closed"]
    head: str


@dataclass(frozen=True)
class GitHub:
    """`api` is https://api.github.com, or https://HOST/api/v3 of a GitHub Enterprise Server; `repository` is OWNER/NAME."""

    api: str
    repository: str
    token: str = field(repr=False)

    @property
    def owner(self) -> str:
        return self.repository.partition("/")[0]

    def latest(self, branch: str) -> PullRequest | None:
        """The newest one of this branch, whatever became of it."""
        found = self._call("GET", params={"head": f"{self.owner}:{branch}", "state": "all", "per_page": "1"})
        return _read(found[0]) if found else None

    def open(self, branch: str, base: str, title: str, body: str) -> PullRequest:
        return _read(self._call("POST", json={"head": branch, "base": base, "title": title, "body": body}))

    def describe(self, number: int, title: str, body: str) -> None:
        self._call("PATCH", f"/{number}", json={"title": title, "body": body})

    def _call(self, method: str, path: str = "", **options: Any) -> Any:
        """Raises RemoteRefused; connection errors are httpx's own."""
        headers = {"authorization": f"Bearer {self.token}", "accept": "application/vnd.github+json"}
        url = f"{self.api}/repos/{self.repository}/pulls{path}"
        answer = httpx.request(method, url, headers=headers, timeout=30, **options)
        if answer.is_error:
            raise RemoteRefused(
                f"{method} {url}: HTTP {answer.status_code} {answer.text[:300]}; the token needs pull requests: write"
            )
        return answer.json()


def github_of(url: str, token: str) -> GitHub:
    """By the repository's own address. Raises RemoteRefused."""
    found = ADDRESS.fullmatch(url)
    if not found or not token:
        raise RemoteRefused(
            f"pull requests need GitHub's address and LIFTLOCK_PLATFORM_TOKEN; the repository is {urlsplit(url).path or url}"
        )
    host = found["host"]
    api = "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"
    return GitHub(api, f"{found['owner']}/{found['name']}", token)


def _read(found: dict[str, Any]) -> PullRequest:
    state = "merged" if found.get("merged_at") else "open" if found["state"] == "open" else "closed"
    return PullRequest(found["number"], found["html_url"], state, found["head"]["sha"])  # type: ignore[arg-type]
