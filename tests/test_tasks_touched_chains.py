"""A change that makes a delivery chain incoherent, on a real Git repository: what is new is refused, what was there is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.gate_junit import to_junit
from evals.gate_markdown import to_markdown
from evals.gated import GatedChain, GatedChange, document
from serving.coherence.objects import InputInvalid
from tasks.asked import Endpoint
from tasks.changes import ChangeUnread
from tasks.gate_page import render_gate
from tasks.pull_request import Asked, gate_change
from tasks.settings import Settings
from tests.fix_change import MODEL, Repo, endpoint, make_repo
from tests.fix_coherence import Files, Handle, changed, coherent, written
from tests.fix_endpoint import serving

NOBODY = "http://127.0.0.1:9/v1"  # a change of manifests asks no model
FOLDER = "delivery"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A suite, and a delivery folder whose chain is coherent."""
    made = make_repo(tmp_path / "repo")
    return put(made, coherent())


def put(repo: Repo, files: Files, branch: str | None = None) -> Repo:
    """On main, or on a branch from it."""
    if branch:
        repo.git("checkout", "-q", "-B", branch, "main")
    written(repo.folder / FOLDER, files)
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", branch or "delivery")
    if branch:
        repo.git("checkout", "-q", "main")
    return repo


def gate(repo: Repo, head: str, state: Path, *, fork: bool = False, url: str = NOBODY) -> GatedChange:
    where = Endpoint(url, None, Settings(state=state), Console(quiet=True))
    return gate_change(Asked(repo.folder, "main", head, fork, where))


def chain_of(repo: Repo, change: Callable[[Handle], object], state: Path, *, fork: bool = False) -> GatedChain:
    put(repo, changed(change), "change")
    (chain,) = gate(repo, "change", state, fork=fork).chains
    return chain


def cut(handle: Handle) -> None:
    handle.timeouts["request"] = "30s"  # the longest answer takes 84.1 s


@pytest.mark.parametrize("fork", [False, True], ids=["branch", "fork"])
def test_a_limit_that_cuts_answers_is_refused_and_named(repo: Repo, tmp_path: Path, fork: bool) -> None:
    found = chain_of(repo, cut, tmp_path / "state", fork=fork)
    assert (found.path, found.verdict, found.known) == (FOLDER, "rejected", 0)
    assert any(said.startswith("answer-cut: ") and f"({FOLDER}/manifests.yaml:" in said for said in found.new)


def test_a_harmless_change_passes(repo: Repo, tmp_path: Path) -> None:
    found = chain_of(repo, lambda handle: handle.timeouts.update(request="349s"), tmp_path / "state")
    assert (found.verdict, found.new, found.known) == ("passed", (), 0)


def test_what_was_there_before_is_counted_and_does_not_judge(repo: Repo, tmp_path: Path) -> None:
    put(repo, changed(cut))
    put(repo, changed(lambda handle: (cut(handle), handle.service["metadata"].update(labels={"a": "b"}))), "label")
    (found,) = gate(repo, "label", tmp_path / "state").chains
    assert (found.verdict, found.known >= 1) == ("passed", True)
    put(repo, changed(lambda handle: handle.timeouts.update(request="20s")), "shorter")
    (worse,) = gate(repo, "shorter", tmp_path / "state").chains
    assert worse.verdict == "rejected"  # wrong before, and worse now


def test_a_change_cannot_accept_its_own_fault(repo: Repo, tmp_path: Path) -> None:
    def accepted(handle: Handle) -> None:
        cut(handle)
        rules = ("answer-cut", "router-route", "client-route", "drain-short")
        handle.chain["suppress"] = [{"rule": rule, "reason": "we want it", "expires": "2099-01-01"} for rule in rules]

    found = chain_of(repo, accepted, tmp_path / "state")
    assert found.verdict == "rejected"
    assert found.notes == ("The change edits chain.yaml: the one in force is the one before the change.",)


def test_a_change_elsewhere_checks_no_chain(repo: Repo, tmp_path: Path) -> None:
    repo.write("elsewhere", {"../../README.md": "Another line.\n"})
    assert gate(repo, "elsewhere", tmp_path / "state") == GatedChange(
        repo.git("rev-parse", "main"), repo.git("rev-parse", "elsewhere"), ()
    )


def test_unreadable_manifests_and_a_forks_link_are_refused_in_words(repo: Repo, tmp_path: Path) -> None:
    repo.write("broken", {f"../../{FOLDER}/chain.yaml": "liftlock: chain\nclient: []\n"})
    repo.git("rm", "-q", "-r", "--cached", FOLDER)
    repo.git("commit", "-q", "-m", "no delivery yet")
    repo.git("checkout", "-q", "broken", "--", FOLDER)
    repo.git("checkout", "-q", "-B", "new")
    repo.git("commit", "-q", "-am", "new")
    with pytest.raises(InputInvalid, match="unknown key client; known"):
        gate(repo, "new", tmp_path / "state")
    (repo.folder / FOLDER / "values.yaml").unlink()
    (repo.folder / FOLDER / "values.yaml").symlink_to("/etc/passwd")
    repo.git("commit", "-q", "-am", "link")
    with pytest.raises(ChangeUnread, match=r"values\.yaml is no plain file"):
        gate(repo, "new", tmp_path / "state", fork=True)


def test_every_form_of_the_verdict_names_the_new_finding(repo: Repo, tmp_path: Path) -> None:
    put(repo, changed(cut), "cut")
    found = gate(repo, "cut", tmp_path / "state")
    (said, *_) = found.chains[0].new
    rule = said.partition(":")[0]
    assert found.exit_code == 3
    assert document(found)["chains"] == [
        {"path": FOLDER, "verdict": "rejected", "findings": list(found.chains[0].new), "known": 0, "notes": []}
    ]
    assert f"- {rule}:" in to_markdown(found)
    (suite,) = ElementTree.fromstring(to_junit(found))  # noqa: S314  our own text
    failure = suite.find("testcase/failure")
    assert failure is not None and said in (failure.text or "") and suite.get("failures") == "1"
    assert rule in render_gate(found)


@pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")
def test_a_suite_and_a_chain_in_one_change_give_the_worse_verdict(repo: Repo, tmp_path: Path) -> None:
    put(repo, changed(cut), "both")
    repo.git("checkout", "-q", "both")
    (repo.folder / repo.suite / "adapter.yaml").write_text("model: tickets-next\nsha256: " + "b" * 64 + "\n")
    repo.git("commit", "-q", "-am", "adapter")
    repo.git("checkout", "-q", "main")
    with serving(endpoint()) as served:
        found = gate(repo, "both", tmp_path / "state", url=served.base_url)
    assert (found.suites[0].decision.verdict, found.chains[0].verdict, found.verdict) == (
        "passed",
        "rejected",
        "rejected",
    )
