"""`liftlock gate --aa`: the command asks a model twice, and a margin below what differed is refused before anything is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from evals.gate_policy import GatePolicy
from tasks.asked import Endpoint
from tasks.noise import MarginBelowNoise, check_margin
from tasks.pull_request import Asked, gate_change
from tasks.settings import Settings
from tasks.spec import load_release
from tests.fix_change import BETTER, ITEMS, MODEL, Answering, Repo, completions, endpoint, make_repo, prompt
from tests.fix_endpoint import ScriptedEndpoint, serving
from tests.fix_stack import Stack

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = make_repo(tmp_path_factory.mktemp("noise") / "repo")
    made.write("better", {"prompt.yaml": prompt(BETTER)})
    return made


@pytest.fixture
def moody() -> Iterator[ScriptedEndpoint]:
    """Every fifth request that was answered before is answered with another team."""
    answering, seen = Answering(), Counter[tuple[int, ...]]()

    def answer(model: str, ids: list[int]) -> str:
        seen[tuple(ids)] += len(ids) > 3
        flips = seen[tuple(ids)] == 2 and sum(ids) % 5 == 0
        told = answering(model, ids)
        return "nobody" if flips and told != "nobody" else told

    with serving(endpoint(answer)) as served:
        yield served


def test_a_model_that_flips_is_measured_and_the_margin_refused_from_then_on(
    repo: Repo, moody: ScriptedEndpoint, tmp_path: Path
) -> None:
    stack, spec = Stack(tmp_path / "state"), repo.folder / repo.suite / "release.yaml"
    spec.write_text(spec.read_text().replace("margin: 0.1", "margin: 0.01"))
    done = stack.run("gate", "--aa", str(spec), "--endpoint", moody.base_url, "--model", "tickets", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["allowed"], told["items"]) == (3, False, ITEMS), done.stderr
    assert 0 < len(told["flipped"]) < ITEMS / 2
    assert completions(moody) == 2 * ITEMS
    repo.git("commit", "-q", "-am", "a margin of one point")
    repo.write("better", {"prompt.yaml": prompt(BETTER)})
    where = Endpoint(moody.base_url, None, Settings(state=tmp_path / "state"), Console(quiet=True))
    with pytest.raises(MarginBelowNoise, match=rf"{len(told['flipped'])} of {ITEMS} items differed"):
        gate_change(Asked(repo.folder, "main", "better", False, where))
    assert completions(moody) == 2 * ITEMS


def test_without_a_measurement_and_for_wider_margins_nothing_is_refused(repo: Repo, tmp_path: Path) -> None:
    spec = load_release(repo.folder / repo.suite / "release.yaml", ("gate", "dataset.test"))
    check_margin(tmp_path, spec.gate, spec.dataset.test, GatePolicy(rule="non_inferior", margin=0.001))
