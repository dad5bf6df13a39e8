"""evaluate and judge in blocks, as a release runs them: real lm-eval, a scripted engine, and the state folder of a release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from evals.suite import file_sha256
from serving.rollout.golden import GOLDEN
from tasks.artifacts import Adapter, Dataset, Split
from tasks.evaluate import evaluate_pair
from tasks.judge import judge_pair
from tasks.live_gate import live_comparison
from tasks.place import asked_place
from tasks.run import start_run
from tasks.settings import Settings, get_settings
from tasks.spec import Release, load_release
from tasks.stack.engine import Engine, write_engine
from tasks.train import ADAPTER_FILES
from tests.fix_change import ITEMS, MODEL, PLAIN, SPEC, Answering, completions, endpoint, is_right, make_repo, tickets
from tests.fix_endpoint import ScriptedEndpoint, serving

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOBODY = "http://127.0.0.1:1"
CANDIDATE, BASE = f"eval-tickets-{'a' * 12}", "smollm2-135m-instruct"
BLOCKS = SPEC.replace("min_items: 40", "min_items: 40, baseline: base, block: 16")

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")


@pytest.fixture
def served() -> Iterator[ScriptedEndpoint]:
    """The base answers as well as its prompt; the candidate never does."""
    answering = Answering()
    made = endpoint(lambda model, ids: "nobody" if model == CANDIDATE else answering(model, ids))
    made.models = (CANDIDATE, BASE)
    with serving(made):
        yield made


@pytest.fixture
def settings(tmp_path: Path, served: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    with of_state(tmp_path / "state", monkeypatch, VLLM_URL=served.base_url.removesuffix("/v1")) as found:
        yield found


@contextmanager
def of_state(state: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[Settings]:
    given = {
        "STATE": str(state), "MLFLOW_URI": NOBODY, "GATEWAY_URL": NOBODY, "PREFECT_API_URL": NOBODY, "GATEWAY_ADMIN_URL": NOBODY,
        "POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1", **more,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"LIFTLOCK_{name}", value)
    get_settings.cache_clear()
    get_settings().adapters.mkdir(parents=True)
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def spec(tmp_path: Path) -> Release:
    repo = make_repo(tmp_path / "repo")
    file = repo.folder / repo.suite / "release.yaml"
    file.write_text(BLOCKS)
    return load_release(file, ("gate", "dataset.test"))


def made_of(spec: Release, folder: Path) -> tuple[Adapter, Dataset]:
    folder.mkdir()
    for name in ADAPTER_FILES:
        (folder / name).write_text("{}")
    adapter = Adapter(folder, MODEL, MODEL.name, "b" * 64, 8, 16, (), "a" * 64, "run", "revision", ())
    test = Split("test", spec.dataset.test, file_sha256(spec.dataset.test), ITEMS)
    return adapter, Dataset("tickets", "revision", (test,))


def test_a_bad_adapter_is_rejected_after_a_block_or_two_and_asked_again_from_what_was_kept(
    settings: Settings, spec: Release, served: ScriptedEndpoint, tmp_path: Path
) -> None:
    adapter, dataset = made_of(spec, tmp_path / "adapter")
    start_run(settings.state, Path("release.yaml"), "tickets", resume=False, fresh=False, quiet=True)
    pair = evaluate_pair(adapter, dataset, spec)
    decision = judge_pair(pair, spec)
    assert decision.verdict == "rejected"
    assert pair.plan is not None
    assert (pair.candidate.n, pair.plan.items) == (decision.items_used, ITEMS)
    assert decision.items_used in (16, 32)
    assert f"of {decision.items_used} of {ITEMS} asked" in decision.reasons[0]
    assert completions(served) == 2 * decision.items_used
    start_run(settings.state, Path("release.yaml"), "tickets", resume=False, fresh=False, quiet=True)
    again = evaluate_pair(adapter, dataset, spec)
    assert again.sha256 == pair.sha256
    assert again.golden == pair.golden and len(pair.golden) == GOLDEN
    assert completions(served) == 2 * decision.items_used
    assert not list(settings.adapters.iterdir())

    told: list[tuple[int, int]] = []
    place = asked_place(settings, spec)
    live = live_comparison(settings, spec, dataset, (CANDIDATE, place), (BASE, place))
    verdict = live(lambda *one: told.append(one))
    assert not verdict.passed and verdict.reason.startswith("the gate's verdict on the live versions is rejected: ")
    asked = {item.id for item in pair.baseline.items}
    right = fmean(is_right(one["ticket"], PLAIN) for one in tickets() if one["id"] in asked)
    assert (verdict.candidate, verdict.stable) == (0.0, pytest.approx(right))
    assert completions(served) == 4 * decision.items_used and told[-1][0] == 2 * decision.items_used


def test_in_blocks_each_side_is_asked_at_its_own_engine(
    spec: Release, registered: str, mlflow_client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Strategy pool: the champion is right and at the first engine, the candidate never is and has an engine of its own."""
    tags = {"engine_model": "champion", "adapter_sha256": "c" * 64}
    for name, value in tags.items():
        mlflow_client.set_model_version_tag(registered, "1", f"liftlock.{name}", value)
    mlflow_client.set_registered_model_alias(registered, "champion", "1")
    name = f"eval-{registered}-{'a' * 12}"
    first, second = endpoint(), endpoint(lambda model, ids: "nobody")
    first.models, second.models = ("champion",), (name,)
    with serving(first), serving(second), of_state(tmp_path / "state", monkeypatch) as settings:
        ports = {
            part: int(one.base_url.split(":")[2].removesuffix("/v1"))
            for part, one in (("vllm", first), (f"vllm-{registered}-1", second))
        }
        (settings.state / "ports.json").write_text(json.dumps(ports))
        write_engine(settings.state, Engine(str(MODEL)))
        wide = spec.serving.model_copy(update={"max_model_len": 8192})
        gate = spec.gate.model_copy(update={"baseline": "champion"})
        asked = spec.model_copy(update={"name": registered, "serving": wide, "gate": gate})
        adapter, dataset = made_of(asked, tmp_path / "adapter")
        start_run(settings.state, Path("release.yaml"), registered, resume=False, fresh=False, quiet=True)
        pair = evaluate_pair(adapter, dataset, asked)
    assert judge_pair(pair, asked).verdict == "rejected"
    models = [(report.fingerprint.model, report.n) for report in (pair.candidate, pair.baseline)]
    assert models == [(name, pair.candidate.n), ("champion", pair.candidate.n)]
    assert completions(first) == completions(second) == pair.candidate.n < ITEMS
    assert {item.score for item in pair.candidate.items} == {0.0}
