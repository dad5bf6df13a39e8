"""The gate on a change as a Prefect flow, on a real Prefect server: real Git, lm-eval and promptfoo, and a scripted model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.pull_request import ChangeRefused
from tasks.settings import get_settings
from tests.fix_change import MODEL, WORSE, add_cases, endpoint, make_repo, prompt
from tests.fix_endpoint import serving
from tests.fix_prefect import PrefectServer
from tests.fix_stack import ROOT

PROMPTFOO = ROOT / ".toolchain" / "promptfoo" / "node_modules" / ".bin" / "promptfoo"

pytestmark = pytest.mark.skipif(not (PROMPTFOO.is_file() and MODEL.is_dir()), reason="make setup has not run")


def test_a_run_on_a_worse_prompt_fails_and_keeps_the_comment(
    in_prefect: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.pr_gate import pr_gate

    repo = make_repo(tmp_path / "repo")
    kept, lost = add_cases(repo)
    repo.write("worse", {"prompt.yaml": prompt(WORSE)})
    monkeypatch.setenv("LIFTLOCK_STATE", str(tmp_path / "state"))
    get_settings.cache_clear()
    with serving(endpoint()) as served, pytest.raises(ChangeRefused) as refused:
        pr_gate(repo=str(repo.folder), base="main", head="worse", endpoint=served.base_url)
    (run,) = in_prefect.post("/flow_runs/filter", {"flows": {"name": {"any_": ["pr_gate"]}}})
    (artifact,) = in_prefect.post(
        "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"exists_": True}}}
    )
    get_settings.cache_clear()
    (suite,) = refused.value.gated.suites
    assert suite.decision.verdict == "rejected"
    assert suite.decision.case_flips.newly_failing == (lost,)
    assert {case.id: case.change for case in suite.cases} == {kept: "still passing", lost: "newly failing"}
    assert (run["name"], run["state_type"]) == ("change worse", "FAILED")
    assert artifact["key"] == "liftlock-pr-gate"
    assert "❌ rejected" in artifact["data"]
    assert "<summary>1 newly failing cases</summary>" in artifact["data"]
