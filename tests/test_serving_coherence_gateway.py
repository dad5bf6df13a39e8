"""What Liftlock serves through passes its own check: the local gateway, and the manifests that a release delivers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.coherence.check import check
from serving.gateway.model import Endpoint
from serving.gateway.state import Gateway
from serving.manifests.model import Form
from serving.manifests.render import objects
from tasks.coherence import ChainIncoherent, hold_coherent, hold_manifests, tell_manifests
from tasks.exit_codes import code_of
from tests.fix_coherence import TODAY
from tests.fix_rendered import desired

CLIENT = '{"liftlock": "chain", "clients": [{"name": "app", "total": "360s", "retries": 0}]}'


def rendered(folder: Path, fallback: tuple[Endpoint, ...] = ()) -> list[Path]:
    folder.mkdir()
    Gateway(folder, "http://127.0.0.1:9", "http://127.0.0.1:8000", "base-model", fallback=fallback).install(8080, 9901)
    (folder / "chain.json").write_text(CLIENT)
    return [folder]


def test_the_local_stacks_own_envoy_is_coherent(tmp_path: Path) -> None:
    found = check(rendered(tmp_path / "gateway"), TODAY)
    assert [each.finding.message for each in found.findings] == []
    assert {chain.hops[-1].whole.total.value for chain in found.chains} == {300}


def test_its_retries_reach_no_engine_twice(tmp_path: Path) -> None:
    """It retries what the engine cannot have seen; a retry on any 5xx would be found beside OpenAI's SDK's own."""
    folder = tmp_path / "gateway"
    rendered(folder)
    (folder / "chain.json").unlink()
    assert check([folder], TODAY).findings == ()
    routes = (folder / "rds.json").read_text()
    (folder / "rds.json").write_text(routes.replace("connect-failure,", "5xx,connect-failure,"))
    assert {each.finding.rule for each in check([folder], TODAY).findings} == {"retries-two-layers", "retry-many"}


def test_a_release_is_refused_on_an_incoherent_gateway_and_no_other(tmp_path: Path) -> None:
    """With a fallback too: its tries fit into the total. Without files there is nothing to check."""
    folder = tmp_path / "gateway"
    rendered(folder, (Endpoint("other", "http://127.0.0.1:7000"),))
    hold_coherent(folder)
    hold_coherent(tmp_path)
    routes = (folder / "rds.json").read_text()
    (folder / "rds.json").write_text(routes.replace('"timeout": "300s"', '"timeout": "200s"'))
    with pytest.raises(ChainIncoherent, match="retry-unfinished"):
        hold_coherent(folder)
    assert code_of(ChainIncoherent()) == 3


@pytest.mark.parametrize("form", ["inferenceservice", "deployment", "llminferenceservice"])
def test_a_release_is_refused_on_manifests_whose_pods_end_too_early(form: Form) -> None:
    """The objects of a canary, as they would be applied; then with a grace period below the route's limit. A rollback is told."""
    hold_manifests(objects(desired(form=form)))
    said: list[str] = []
    tell_manifests(objects(desired(form=form)), said.append)
    assert said == []
    shorter = shortened(objects(desired(form=form)))
    with pytest.raises(ChainIncoherent, match=r"the manifests are incoherent: drain-short: .* a request may run 240 s"):
        hold_manifests(shorter)
    tell_manifests(shorter, said.append)
    assert len(said) == 1 and "the rollback goes on: drain-short: " in said[0]


def shortened(files: Any) -> Any:
    text = json.dumps(files)
    assert '"terminationGracePeriodSeconds": 280' in text
    return json.loads(text.replace('"terminationGracePeriodSeconds": 280', '"terminationGracePeriodSeconds": 100'))
