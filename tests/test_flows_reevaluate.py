"""The champion asked again: real Prefect, MLflow and lm-eval, and a scripted model that answers worse than at its release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from evals.prompt import load_prompt
from evals.report import to_json
from tasks.asked import Endpoint, Question, ask
from tasks.champion_report import NoChampion, champion_report
from tasks.promotion.evidence import keep_document
from tasks.settings import Settings, get_settings
from tests.fix_change import MODEL, SPEC, Answering, Repo, endpoint, make_repo
from tests.fix_endpoint import serving
from tests.fix_prefect import PrefectServer

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVIDENCE = "e" * 64

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("LIFTLOCK_STATE", str(tmp_path / "state"))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


def champion(client: MlflowClient, name: str, text: str, sha256: str) -> None:
    """Version 2 of the model, with this report as its evidence."""
    run = client.get_model_version(name, "2").run_id
    keep_document(client, run, EVIDENCE, "candidate.json", text)
    client.set_model_version_tag(name, "2", "liftlock.evidence", EVIDENCE)
    client.set_model_version_tag(name, "2", "liftlock.engine_model", "tickets")
    client.set_model_version_tag(name, "2", "liftlock.eval_report_sha256", sha256)
    client.set_registered_model_alias(name, "champion", "2")


def test_a_model_without_a_champion_is_refused(registered: str) -> None:
    with pytest.raises(NoChampion, match="has no champion"):
        champion_report(registered)


def test_a_champion_that_answers_worse_has_drifted(
    registered: str,
    mlflow_client: MlflowClient,
    in_prefect: PrefectServer,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.reevaluate import reevaluate

    repo: Repo = make_repo(tmp_path / "repo")
    suite = repo.folder / repo.suite
    (suite / "release.yaml").write_text(SPEC.replace("name: tickets", f"name: {registered}"))
    served = endpoint()
    with serving(served):
        monkeypatch.setenv("LIFTLOCK_VLLM_URL", served.base_url.removesuffix("/v1"))
        get_settings.cache_clear()
        where = Endpoint(served.base_url, None, settings, Console(quiet=True))
        asked = Question(
            registered, suite / "task.yaml", None, load_prompt(suite / "prompt.yaml"), suite / "data" / "test.jsonl",
            "exact_match,none", "SmolLM2-135M-Instruct", "tickets", None,
        )  # fmt: skip
        report, _ = ask(asked, where, "release")
        champion(mlflow_client, registered, to_json(report), report.sha256)
        served.complete = forgetful(Answering())
        told = reevaluate(spec_file=str(suite / "release.yaml"))
        (event,) = in_prefect.events("liftlock.champion.drift", registered)
    assert (told["verdict"], told["exit_code"]) == ("rejected", 3)
    assert event["resource"]["prefect.resource.id"] == f"liftlock.model.{registered}"
    assert (event["payload"]["verdict"], event["payload"]["before"]) == ("rejected", "none")
    assert json.loads((settings.state / "drift" / f"{registered}.json").read_text()) == {"verdict": "rejected"}
    champion(mlflow_client, registered, to_json(report), "0" * 64)
    with pytest.raises(NoChampion, match="its evidence names 000000000000"):
        champion_report(registered)


def forgetful(answering: Answering) -> Any:
    return lambda model, ids: (
        "" if answering(model, ids) in ("account", "billing", "sales", "security") else answering(model, ids)
    )
