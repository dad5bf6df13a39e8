"""Two versions of a model in a real MLflow as a build leaves them, and `liftlock` in a process of its own beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.fit import EngineFlags, preflight
from tests.fix_fit import SMOLLM2_CONFIG, write_adapter, write_model
from tests.fix_rendered import ENGINE, PICKER, ROOT
from tests.fix_spec import SMALL, fill

if TYPE_CHECKING:
    from mlflow import MlflowClient

COLD = [["pull", 300.0], ["load", 150.0], ["warm", 50.0]]


@pytest.fixture
def released(tmp_path: Path, mlflow_server: str, mlflow_client: MlflowClient, registered: str) -> Any:
    """Versions 3 and 4 built and pushed; 3 is the champion. The function runs `liftlock` there."""
    base, adapter = write_model(tmp_path / "models" / registered, SMOLLM2_CONFIG), tmp_path / "adapter"
    write_adapter(adapter, SMOLLM2_CONFIG, base=registered)
    fit = preflight(
        base, adapter, gpu="nvidia-l4", flags=EngineFlags(max_model_len=2048, max_loras=4), engine_version="0.23.0"
    )
    for version in ("3", "4"):
        _build(mlflow_client, registered, version, asdict(fit), tmp_path)
    mlflow_client.set_registered_model_alias(registered, "champion", "3")
    mlflow_client.set_registered_model_alias(registered, "staging", "4")
    (tmp_path / "platform.yaml").write_text(f"engine_image: {ENGINE}\npicker_image: {PICKER}\n")
    spec = (
        SMALL.replace("a-model", registered).replace("some-model", str(base))
        + "delivery: {target: gitops, strategy: pool}\n"
    )
    (fill(tmp_path) / "release.yaml").write_text(spec)

    def run(*arguments: str, program: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """`program`: Python text in place of the command."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "MLFLOW_"))}
        settings = {
            "LIFTLOCK_STATE": str(tmp_path / "state"), "LIFTLOCK_MLFLOW_URI": mlflow_server, "PYTHONPATH": str(ROOT),
            "LIFTLOCK_REGISTRY": "https://registry.example.com", "LIFTLOCK_PLATFORM": str(tmp_path / "platform.yaml"),
        }  # fmt: skip
        argv = [sys.executable, *(("-c", program) if program else ("-m", "flows.cli")), *arguments]
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**kept, **settings, **environment},
            timeout=200,
            check=False,
        )

    return run


def _build(client: MlflowClient, name: str, version: str, fit: dict[str, Any], folder: Path) -> None:
    """What the build leaves in the registry."""
    key = version * 64
    for tag, value in {
        "modelcar": f"liftlock/{name}@sha256:{version * 64}", "evidence": key, "engine_model": f"{name}-{version * 12}",
        "eval_report_sha256": f"sha256:{'e' * 64}", "fit_report_sha256": f"sha256:{'f' * 64}",
    }.items():  # fmt: skip
        client.set_model_version_tag(name, version, f"liftlock.{tag}", value)
    run = client.get_model_version(name, version).run_id
    for file, document in {"fit.json": fit, "rollout.json": {"cold_start": COLD, "steps": []}}.items():
        (folder / file).write_text(json.dumps(document))
        client.log_artifact(run, str(folder / file), f"evidence/{key[:12]}")
