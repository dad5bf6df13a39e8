"""`liftlock modelcar` as a user runs it: a process, its exit code, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_modelcar import make_adapter, make_base

pytest_plugins = ("tests.fix_registry",)

ROOT = Path(__file__).parent.parent


def liftlock(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(state), "LIFTLOCK_TOOLCHAIN": str(state)}
    command = [sys.executable, "-m", "flows.cli", "modelcar", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=state.parent)


def test_a_model_goes_to_a_registry_and_back(tmp_path: Path, registry: str, repository: str) -> None:
    base, adapter, state = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter"), tmp_path / "state"
    target = f"{registry}/{repository}:v1"
    with_adapter = ["--adapter", str(adapter), "--adapter-name", "router"]
    built = liftlock(state, "build", str(base), *with_adapter, "--no-shell", "--to", target, "--modelpack", "--json")
    assert built.returncode == 0, built.stderr
    document = json.loads(built.stdout)
    assert document["reference"] == f"{target.removeprefix('http://').removesuffix(':v1')}@{document['digest']}"
    assert [layer["title"] for layer in document["layers"]][-1] == "adapters/router"

    only_digest = liftlock(state, "build", str(base), *with_adapter, "--no-shell")
    assert only_digest.stdout.splitlines()[-1] == document["digest"]

    pulled = liftlock(state, "pull", document["reference"], "out")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "out" / "adapters" / "router" / "adapter_config.json").is_file()
    assert liftlock(state, "pull", target, "out").returncode == 2

    copied = liftlock(state, "push", target, f"oci:{tmp_path / 'layout'}:v1")
    assert copied.stdout.splitlines()[-1] == f"oci:{tmp_path / 'layout'}@{document['digest']}"
    seen = json.loads(liftlock(state, "inspect", f"oci:{tmp_path / 'layout'}:v1", "--files", "--json").stdout)
    assert (seen["digest"], seen["platform"]) == (document["digest"], "linux/amd64")
    assert "models/config.json" in [file["name"] for layer in seen["layers"] for file in layer.get("files", ())]

    assert liftlock(state, "diff", target, f"oci:{tmp_path / 'layout'}:v1").returncode == 0
    liftlock(state, "build", str(base), "--no-shell", "--to", f"oci:{tmp_path / 'layout'}:base")
    different = liftlock(state, "diff", target, f"oci:{tmp_path / 'layout'}:base", "--json")
    assert different.returncode == 3
    assert [layer["title"] for layer in json.loads(different.stdout)["layers"]] == ["adapters/router"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build", "base", "--shell", "base/config.json"], 2, "sha256 "),
        (["build", "base", "--no-shell", "--to", "nowhere"], 2, "names no registry"),
        (["build", "base", "--no-shell", "--annotation", "x"], 2, "write KEY=VALUE"),
        (["build", "base", "--no-shell", "--allow-licence", "mit"], 3, "licence is not named"),
        (["build", "absent", "--no-shell"], 2, "is not a folder"),
        (["build", "base", "--no-shell", "--adapter", "base"], 2, "give both or neither"),
        (["inspect", "oci:absent"], 2, "has no manifest latest"),
        (["pull", "oci:absent:v1", "out"], 2, "has no manifest v1"),
    ],
)
def test_bad_input_is_one_line_and_a_code(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    make_base(tmp_path / "base")
    done = liftlock(tmp_path / "state", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
