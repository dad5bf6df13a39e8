"""--fix: its output is clean under the check, and kustomize and Helm's merge make of it what the check made of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serving.coherence.check import check
from serving.coherence.fix import COMPONENT, VALUES, fix
from serving.coherence.objects import InputInvalid, read_paths
from tests.fix_coherence import TODAY, Handle, changed, coherent, written

ROOT = Path(__file__).resolve().parent.parent
HOST = ROOT / "tests" / "data" / "coherence" / "host"


def test_the_host_is_mended_from_one_number(tmp_path: Path) -> None:
    """300 s is what n8n waits, and no manifest changes it; so LiteLLM and the route behind it wait less."""
    done = fix([HOST], tmp_path / "fix", None)
    assert (done.budget, done.left) == (300, ())
    assert check([HOST, tmp_path / "fix"], TODAY).findings == ()
    values = yaml.safe_load((tmp_path / "fix" / VALUES).read_text())
    assert values["proxy_config"]["router_settings"] == {"num_retries": 0, "timeout": 285}
    (route,) = (
        each for each in read_paths([HOST, tmp_path / "fix"]).kind("HTTPRoute") if each.name == "llm-route-real"
    )
    assert route.spec["rules"][0]["timeouts"] == {"request": "270s"}


def test_what_fits_is_not_touched(tmp_path: Path) -> None:
    """Without n8n the budget is the 600 s of OpenAI's SDK, and the route's 300 s are below LiteLLM's 570 s."""
    folder = tmp_path / "in"
    shutil.copytree(HOST, folder)
    (folder / "clients.yaml").unlink()
    assert fix([folder], tmp_path / "fix", None).budget == 600
    assert check([folder, tmp_path / "fix"], TODAY).findings == ()
    values = yaml.safe_load((tmp_path / "fix" / VALUES).read_text())
    assert values["proxy_config"]["router_settings"] == {"num_retries": 0, "timeout": 570}
    assert "llm-route-real" not in (tmp_path / "fix" / COMPONENT).read_text()


@pytest.mark.parametrize("budget", [60.0, 120.0, 299.0])
def test_any_budget_gives_a_clean_chain(budget: float, tmp_path: Path) -> None:
    assert fix([HOST], tmp_path / "fix", budget).left == ()
    assert check([HOST, tmp_path / "fix"], TODAY).findings == ()


def test_the_command_writes_it_and_says_what_is_next(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "flows.cli", "coherence", str(HOST)]
    mend = [*argv, "--fix", str(tmp_path / "fix"), "--budget", "5m"]
    done = subprocess.run(mend, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0 and "from a budget of 300 s" in done.stdout, done.stderr
    again = subprocess.run(
        [*argv, str(tmp_path / "fix")], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert again.returncode == 0 and again.stdout.rstrip().endswith("coherent (7 chains from 7 files)")


def test_kustomize_makes_the_same_of_it(tmp_path: Path) -> None:
    """kubectl's kustomize applies the Component to the manifests; the check reads the rendered output as coherent."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH")
    fix([HOST], tmp_path / "fix", None)
    manifests = [each.name for each in HOST.glob("*.yaml") if each.name != "litellm-values.yaml"]
    for name in manifests:
        shutil.copy(HOST / name, tmp_path / name)
    base = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": manifests,
        "components": ["fix"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(base))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "rendered.yaml").write_text(done.stdout)
    ours = {each.key: each.body for each in read_paths([HOST, tmp_path / "fix"]).objects}
    theirs = {each.key: each.body for each in read_paths([tmp_path / "rendered.yaml"]).objects}
    assert theirs == ours
    rendered = [tmp_path / "rendered.yaml", HOST / "litellm-values.yaml", tmp_path / "fix" / VALUES]
    assert check(rendered, TODAY).findings == ()


MENDABLE: dict[str, Callable[[Handle], object]] = {
    "router below the route": lambda h: h.router.update(timeout=200),
    "router below the longest answer": lambda h: h.router.update(timeout=50),
    "a deployment below it": lambda h: h.params.update(timeout=80),
    "request_timeout below it": lambda h: (
        h.router.pop("timeout"),
        h.config.update(litellm_settings={"request_timeout": 60}),
    ),
    "router and route below it": lambda h: (h.router.update(timeout=30), h.timeouts.update(request="20s")),
    "too many tries": lambda h: h.router.update(num_retries=5),
    "retries of the route too": lambda h: h.rule.update(retry={"codes": [503], "attempts": 2, "backoff": "1s"}),
    "a deployment's own timeout": lambda h: h.params.update(timeout=200),
    "backendRequest above request": lambda h: h.timeouts.update(backendRequest="400s"),
    "edge below the router": lambda h: h.outer.update(request="300s"),
    "route below the answer": lambda h: h.timeouts.update(request="20s"),
    "no drain": lambda h: (
        h.pod.pop("terminationGracePeriodSeconds"),
        h.vllm.pop("lifecycle"),
        h.values.pop("lifecycle"),
    ),
    "slow start": lambda h: h.figures.update(cold_start="700s"),
    "LiteLLM that keeps on": lambda h: h.config.pop("general_settings"),
    "first chunk": lambda h: h.router.update(stream_timeout=3),
}


@pytest.mark.parametrize("name", MENDABLE)
def test_what_a_manifest_can_hold_is_mended(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", changed(MENDABLE[name]))
    assert check(folder, TODAY).findings
    done = fix(folder, tmp_path / "fix", None)
    assert [each.finding.message for each in done.left] == []
    assert check([*folder, tmp_path / "fix"], TODAY).findings == ()


def test_a_router_below_the_longest_answer_is_raised(tmp_path: Path) -> None:
    """850 s of the edge less a margin of 45 s and 3 s of waits are 401 s for each of two tries; the route's 350 s stay."""
    folder = written(tmp_path / "in", changed(MENDABLE["router below the longest answer"]))
    fix(folder, tmp_path / "fix", None)
    values = yaml.safe_load((tmp_path / "fix" / VALUES).read_text())
    assert values["proxy_config"]["router_settings"] == {"timeout": 401}
    assert not (tmp_path / "fix" / COMPONENT).read_text().count("timeouts")


def test_a_coherent_chain_is_left_as_it_is(tmp_path: Path) -> None:
    assert fix(written(tmp_path / "in", coherent()), tmp_path / "fix", None).steps == ()


def test_what_no_manifest_can_hold_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", changed(lambda h: h.give(cancels=False)))
    assert {each.finding.rule for each in fix(folder, tmp_path / "fix", None).left} == {"cancel-lost"}


def test_a_budget_that_cannot_hold_the_answer_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", coherent())
    with pytest.raises(InputInvalid, match="the longest answer takes"):
        fix(folder, tmp_path / "fix", 60)
    with pytest.raises(InputInvalid, match="less than the budget"):
        fix(folder, tmp_path / "fix", 3600)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "other").write_text("")
    with pytest.raises(InputInvalid, match="holds something else"):
        fix(folder, tmp_path / "taken", None)
