"""A pull-request drill: the command on a real Git repository, with the real lm-eval, against a scripted model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.gate_markdown import MARKER
from evals.gated import GatedChange, document
from evals.suite import SuiteInvalid
from tasks.asked import Endpoint
from tasks.changes import ChangeUnread, read_change
from tasks.pull_request import Asked, gate_change
from tasks.settings import Settings
from tests.fix_change import (
    BETTER,
    ITEMS,
    MODEL,
    SPEC,
    WORSE,
    Repo,
    completions,
    endpoint,
    lines,
    make_repo,
    pin,
    prompt,
    tickets,
)
from tests.fix_endpoint import ScriptedEndpoint, serving
from tests.fix_page import Page
from tests.fix_stack import ROOT, Stack

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")


@dataclass
class Team:
    """A repository, the state folder of its CI, and the endpoint that the CI asks."""

    repo: Repo
    state: Path
    served: ScriptedEndpoint

    def gate(self, head: str, *, fork: bool = False) -> GatedChange:
        where = Endpoint(self.served.base_url, None, Settings(state=self.state), Console(quiet=True))
        return gate_change(Asked(self.repo.folder, "main", head, fork, where))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    repo = make_repo(folder / "repo")
    repo.write("worse", {"prompt.yaml": prompt(WORSE)})
    repo.write("better", {"prompt.yaml": prompt(BETTER)})
    with serving(endpoint()) as served:
        yield Team(repo, folder / "state", served)


@dataclass
class Ran:
    done: subprocess.CompletedProcess[str]
    folder: Path
    asked: int

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.done.stdout))


def run_gate(team: Team, head: str, folder: Path) -> Ran:
    before = completions(team.served)
    arguments = ["--repo", str(team.repo.folder), "--base", "main", "--head", head, "--endpoint", team.served.base_url]
    files = [f"--{kind}={folder / f'{head}.{kind}'}" for kind in ("junit", "markdown", "html")]
    done = Stack(team.state).run("gate", *arguments, *files, "--json")
    return Ran(done, folder, completions(team.served) - before)


@pytest.fixture(scope="module")
def worse(team: Team, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_gate(team, "worse", tmp_path_factory.mktemp("worse"))


@pytest.fixture(scope="module")
def better(team: Team, worse: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """After `worse`, whose baseline it shares."""
    return run_gate(team, "better", tmp_path_factory.mktemp("better"))


def test_a_worse_prompt_is_rejected(worse: Ran) -> None:
    assert worse.done.returncode == 3, worse.done.stderr
    (suite,) = worse.told["suites"]
    assert (worse.told["verdict"], worse.told["exit_code"]) == ("rejected", 3)
    assert (suite["suite"], suite["touched"]) == ("tickets", ["prompt"])
    assert suite["difference"] < -0.2 and suite["interval"][1] < 0
    assert worse.asked == 2 * ITEMS


def test_a_better_prompt_passes_and_its_baseline_is_not_asked_again(better: Ran) -> None:
    assert better.done.returncode == 0, better.done.stderr
    (suite,) = better.told["suites"]
    assert suite["difference"] > 0.2 and suite["baseline_reused"] and not suite["newly_failing"]
    assert better.asked == ITEMS


def test_junit_is_red_exactly_where_the_verdict_is(worse: Ran, better: Ran) -> None:
    red, green = (
        ElementTree.parse(ran.folder / f"{name}.junit").getroot()  # noqa: S314 - our own
        for ran, name in ((worse, "worse"), (better, "better"))
    )
    assert [case.get("name") for case in red.iter("testcase")] == ["non_inferior", "verdict"]
    assert (red.get("tests"), red.get("failures"), red.get("errors")) == ("2", "2", "0")
    assert (green.get("tests"), green.get("failures"), green.get("errors")) == ("2", "0", "0")


def test_the_comment_begins_with_its_marker_and_names_what_newly_fails(worse: Ran, better: Ran) -> None:
    red, green = ((ran.folder / f"{name}.markdown").read_text() for ran, name in ((worse, "worse"), (better, "better")))
    assert red.splitlines()[0] == green.splitlines()[0] == MARKER
    assert "❌ rejected" in red and "✅ passed" in green
    (suite,) = worse.told["suites"]
    assert f"<summary>{len(suite['newly_failing'])} newly failing</summary>" in red
    assert "newly failing" not in green
    assert f"| {ITEMS} of {ITEMS} |" in red


def test_the_page_shows_both_answers_and_loads_nothing(worse: Ran) -> None:
    text = (worse.folder / "worse.html").read_text()
    page = Page(text.replace("<!doctype html>", ""))
    assert "tickets was rejected" in page.text
    (suite,) = worse.told["suites"]
    assert all(name in page.text for name in suite["newly_failing"])
    assert not [value for key in ("src", "action") for value in page.values(key)]
    assert all(link.startswith(("#", "data:")) for link in page.values("href"))


def test_a_change_elsewhere_asks_nothing(team: Team) -> None:
    team.repo.write("docs", {"../../README.md": "Another text.\n"})
    before = len(team.served.asked)
    gated = team.gate("docs")
    assert (gated.verdict, gated.suites, len(team.served.asked)) == ("passed", (), before)


def test_another_adapter_is_gated_against_the_one_before(team: Team, better: Ran) -> None:
    """The scripted model is the same behind both names, so the two cannot differ; that both were asked can be seen."""
    team.repo.write("adapter", {"adapter.yaml": pin("b" * 64, "tickets-next")})
    gated = team.gate("adapter")
    (suite,) = gated.suites
    assert suite.touched == ("adapter",)
    assert (suite.decision.candidate, suite.decision.baseline, suite.reused) == ("tickets-next", "tickets", True)


def test_the_rule_in_force_is_the_one_before_the_change(team: Team, worse: Ran) -> None:
    softened = SPEC.replace("margin: 0.1", "margin: 0.9")
    team.repo.write("softened", {"prompt.yaml": prompt(WORSE), "release.yaml": softened})
    gated = team.gate("softened")
    (suite,) = gated.suites
    assert suite.decision.verdict == "rejected"
    assert suite.touched == ("prompt", "release.yaml")
    assert any("the one before the change" in note for note in suite.notes)


def test_a_forks_prompt_is_judged_and_its_code_is_not_taken(team: Team, better: Ran) -> None:
    task = (ROOT / "evals" / "ticket_router" / "ticket_router.yaml").read_text()
    code = task.replace('doc_to_target: "{{team}}"', 'doc_to_target: "{{ evil() }}"')
    assert code != task
    team.repo.write("fork-code", {"prompt.yaml": prompt(BETTER), "task.yaml": code})
    before = completions(team.served)
    gated = team.gate("fork-code", fork=True)
    (suite,) = gated.suites
    assert completions(team.served) == before, "the better prompt on the base's task was asked already"
    assert suite.decision.verdict == "inconclusive"
    assert suite.decision.reasons[0].startswith("The fork changes task")
    assert suite.comparison and suite.comparison.verdict == "passed"


def test_a_forks_link_and_new_suite_are_refused(team: Team) -> None:
    path = team.repo.folder / team.repo.suite / "data" / "test.jsonl"
    team.repo.git("checkout", "-q", "-B", "fork-link", "main")
    path.unlink()
    path.symlink_to("/etc/passwd")
    team.repo.git("commit", "-q", "-am", "link")
    team.repo.git("checkout", "-q", "main")
    with pytest.raises(ChangeUnread, match="data from a fork must be plain files"):
        team.gate("fork-link", fork=True)
    with pytest.raises(ChangeUnread, match="cannot be unpacked safely"):
        team.gate("fork-link")
    team.repo.write("fork-suite", {"../other/release.yaml": SPEC})
    with pytest.raises(SuiteInvalid, match=r"suites/other/release\.yaml is new in a fork"):
        team.gate("fork-suite", fork=True)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"data/test.jsonl": lines([*tickets(3), tickets(1)[0]])}, r"twice; pairing needs unique ids"),
        ({"data/test.jsonl": lines(tickets(3))[:-20]}, r"test\.jsonl:3 is not JSON"),
        ({"data/test.jsonl": "\n"}, "has no items"),
        ({"adapter.yaml": pin("abc")}, r"suites/tickets/adapter\.yaml: sha256"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_in_words_before_anything_is_asked(
    team: Team, files: dict[str, str | None], said: str
) -> None:
    team.repo.write("bad", files)
    before = completions(team.served)
    with pytest.raises(SuiteInvalid, match=said):
        team.gate("bad")
    assert completions(team.served) == before


def test_commits_that_are_not_there_are_named(team: Team, tmp_path: Path) -> None:
    with pytest.raises(ChangeUnread, match="has no commit 'gone'"):
        read_change(team.repo.folder, "gone", "main")
    with pytest.raises(ChangeUnread, match="is no commit"):
        read_change(team.repo.folder, "--output=x", "main")
    team.repo.git("checkout", "-q", "--orphan", "alone")
    team.repo.git("commit", "-q", "-m", "alone")
    team.repo.git("checkout", "-q", "main")
    with pytest.raises(ChangeUnread, match="fetch-depth: 0"):
        read_change(team.repo.folder, "main", "alone")
    with pytest.raises(ChangeUnread, match="no folder"):
        read_change(tmp_path / "gone", "main", "HEAD")


def test_usage_faults_end_with_code_2_and_one_sentence(team: Team, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "state")
    done = stack.run("gate", "--base", "main", "--junit", str(tmp_path / "gone" / "junit.xml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "lies in a folder that does not exist" in done.stderr
    done = stack.run("gate", "--repo", str(team.repo.folder), "--base", "main")
    assert (done.returncode, "no endpoint" in done.stderr) == (2, True)


def test_the_json_answer_has_the_comparison(worse: Ran, team: Team) -> None:
    told = document(team.gate("worse"))  # from what was kept
    assert told == worse.told | {"suites": [{**worse.told["suites"][0], "baseline_reused": True}]}


def test_with_blocks_a_worse_prompt_costs_a_part_of_the_items(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    (repo.folder / repo.suite / "release.yaml").write_text(SPEC.replace("min_items: 40", "min_items: 40, block: 16"))
    repo.git("commit", "-q", "-am", "blocks")
    repo.write("worse", {"prompt.yaml": prompt(WORSE)})
    with serving(endpoint()) as served:
        team = Team(repo, tmp_path / "state", served)
        (suite,) = team.gate("worse").suites
        used = suite.decision.items_used
        assert (suite.decision.verdict, suite.reused) == ("rejected", False)
        assert used in range(16, ITEMS, 16)
        assert len(suite.items) == used
        assert completions(served) == 2 * used
