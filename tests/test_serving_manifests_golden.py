"""Rendered texts against files that a person has read, LiteLLM's values through Helm itself, and the coherence of the whole."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.coherence.check import check
from serving.manifests.model import Alias, Desired
from serving.manifests.render import LITELLM, render
from tasks.manifest_files import litellm_entries
from tests.fix_api_server import find_program
from tests.fix_rendered import desired, on_one_engine
from tests.rendered_golden import ALIAS, FOLDER, cases, text

CASES = cases()
TODAY = date(2026, 11, 28)
# What the platform's LiteLLM has to say of itself: its pods end after the longest request, and it tells the engine who has gone.
ALONE = replace(ALIAS, others=())
BASE: dict[str, Any] = {
    "terminationGracePeriodSeconds": 300,
    "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
    "proxy_config": {
        "general_settings": {"store_model_in_db": True, "cancel_on_disconnect": True},
        "model_list": [
            {"model_name": "coder-chat", "litellm_params": {"model": "openai/qwen2.5-coder-7b-instruct"}},
            {"model_name": "ticket-router", "litellm_params": {"model": "openai/an-older-one"}},
            {"model_name": "embeddings", "litellm_params": {"model": "openai/bge-base-en-v1.5"}},
        ],
    },
}

BASE_ALONE = BASE | {"proxy_config": {"general_settings": BASE["proxy_config"]["general_settings"]}}


@pytest.mark.parametrize("case", CASES)
def test_the_text_is_the_one_that_was_read(case: str) -> None:
    assert text(CASES[case]) == (FOLDER / f"{case}.txt").read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)


def written(folder: Path, wanted: Desired) -> Path:
    for path, content in render(wanted).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


@pytest.mark.parametrize("request_seconds", [60, 240])
@pytest.mark.parametrize("form", ["inferenceservice", "deployment", "llminferenceservice"])
def test_the_whole_chain_is_coherent(tmp_path: Path, form: Any, request_seconds: int) -> None:
    """OpenAI's SDK, LiteLLM with the overlay, the route, the pool and the draining engine: no finding, nothing suppressed."""
    every = [desired(form=form, alias=ALONE), desired(form=form, alias=ALONE, strategy="swap", weight=100)]
    if form != "llminferenceservice":
        every.append(on_one_engine(form=form, alias=ALONE))
    for number, wanted in enumerate(every):
        folder = written(tmp_path / str(number), replace(wanted, request_seconds=request_seconds))
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(BASE_ALONE))
        found = check([tmp_path / "values.yaml", folder], TODAY)
        assert [(each.finding.rule, each.finding.message) for each in found.findings] == []
        chains = [chain for chain in found.chains if chain.alias == "ticket-router"]
        assert chains and all(chain.hops[-1].kind == "route" for chain in chains)
        assert all(chain.engine.drain and chain.engine.drain.waits_for_idle for chain in chains)


def test_a_shorter_grace_would_be_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "m", desired(form="deployment", alias=ALONE))
    workload = folder / "ticket-router-v3" / "workload.yaml"
    workload.write_text(
        workload.read_text().replace("terminationGracePeriodSeconds: 280", "terminationGracePeriodSeconds: 200")
    )
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(BASE_ALONE))
    assert {each.finding.rule for each in check([tmp_path / "values.yaml", folder], TODAY).findings} == {"drain-short"}


def test_helm_itself_merges_the_overlay(tmp_path: Path) -> None:
    """Lists are replaced, so the overlay has the whole list, with the model in its place; other settings stay."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: values\nversion: 0.1.0\n")
    (chart / "templates" / "values.yaml").write_text("{{ .Values | toYaml }}\n")
    values, overlay = tmp_path / "values.yaml", tmp_path / LITELLM
    values.write_text(yaml.safe_dump(BASE))
    others = litellm_entries((values,))
    overlay.write_text(render(desired(alias=replace(ALIAS, others=others)))[LITELLM])
    argv = [find_program("helm"), "template", "x", chart, "-f", values, "-f", overlay]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    merged = yaml.safe_load(done.stdout)
    assert merged["terminationGracePeriodSeconds"] == 300
    assert merged["proxy_config"]["general_settings"] == BASE["proxy_config"]["general_settings"]
    models = merged["proxy_config"]["model_list"]
    assert [each["model_name"] for each in models] == ["coder-chat", "ticket-router", "embeddings"]
    assert models[0] == BASE["proxy_config"]["model_list"][0]
    assert models[1]["litellm_params"]["model"] == "openai/ticket-router"
    assert float(models[1]["litellm_params"]["input_cost_per_token"]) == 5e-07  # PyYAML takes Helm's 5e-07 for text
    assert models[1]["model_info"]["owner"] == "support"
    assert models[1]["model_info"]["weights"] == {"v3": 90, "v4": 10}


def test_an_alias_that_is_new_comes_last() -> None:
    alias = Alias("ticket-router", 1e-07, 1e-07, {}, ({"model_name": "a"}, {"model_name": "b"}))
    listed = yaml.safe_load(render(desired(alias=alias))[LITELLM])["proxy_config"]["model_list"]
    assert [each["model_name"] for each in listed] == ["a", "b", "ticket-router"]
