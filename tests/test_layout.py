"""The layout holds: our packages win the import, flows have names of their own, deployments point at what is there."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from prefect import Flow
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("evals", "flows", "rag", "serving", "tasks")
WHERE = f"import importlib, json; print(json.dumps([importlib.import_module(name).__file__ for name in {PACKAGES}]))"


@pytest.fixture
def rivals(tmp_path: Path) -> Path:
    """A folder with packages of the same names, such as other people's projects have."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a rival')\n")
    return tmp_path


def run(argv: list[str], cwd: Path, pythonpath: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": pythonpath}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_under_pytest_our_packages_win(name: str) -> None:
    assert Path(importlib.import_module(name).__file__ or "").resolve() == ROOT / name / "__init__.py"


def test_by_the_import_path_our_packages_win(rivals: Path) -> None:
    done = run([sys.executable, "-P", "-c", WHERE], rivals, f"{ROOT}{os.pathsep}{rivals}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [str(ROOT / name / "__init__.py") for name in PACKAGES]


def test_the_installed_command_is_ours_in_a_folder_of_rivals(rivals: Path) -> None:
    done = run([str(ROOT / ".venv" / "bin" / "liftlock"), "--help"], rivals, str(rivals))
    assert done.returncode == 0, done.stderr
    assert "Usage: liftlock" in done.stdout


def test_no_flow_is_named_like_a_package_or_a_dependency() -> None:
    """Prefect puts a file entrypoint's folder on the import path: a flow named `mlflow` would be imported for MLflow."""
    stems = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}
    assert "release" in stems
    assert not stems & (set(packages_distributions()) | set(sys.stdlib_module_names) | set(PACKAGES) | {"tests"})


def test_no_package_of_ours_is_named_like_an_installed_one() -> None:
    assert not set(PACKAGES) & set(packages_distributions())


def test_the_entrypoints_of_prefect_yaml_are_modules_with_that_flow() -> None:
    deployments = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        entrypoint = deployment["entrypoint"]
        assert ":" not in entrypoint, "a file entrypoint; write it as module.flow"
        module, _, name = entrypoint.rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
        assert deployment["description"]
        assert all(field.get("description") for field in flow.parameters.properties.values()), (
            f"{name}: the form lacks words"
        )


def test_a_deployments_spec_is_there() -> None:
    deployments = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = [deployment["parameters"]["spec_file"] for deployment in deployments if "spec_file" in deployment.get("parameters", {})]  # fmt: skip
    assert named
    assert all((ROOT / path).is_file() for path in named)


def test_the_import_contracts_are_kept() -> None:
    done = run([str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], ROOT, str(ROOT))
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def test_tests_are_flat_and_no_package() -> None:
    assert not (ROOT / "tests" / "__init__.py").exists()
    scattered = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent != ROOT / "tests"]
    assert scattered == []
