"""A base model by name, folder or id: what is fetched takes no other model's place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fix_fit import write_model
from tests.fix_hub import TOKEN, FakeHub, running_hub
from tests.fix_stack import ROOT

Resolve = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = """
import sys
from pathlib import Path
from tasks.base_model import BaseModelRefused, resolve_base
from tasks.settings import get_settings
try:
    print(resolve_base(sys.argv[1], get_settings()))
except BaseModelRefused as refused:
    sys.exit(f"refused: {refused}")
"""


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """In a process of its own: the hub's client reads its settings when it is imported."""

    def run(name: str, hub: str = "http://127.0.0.1:1") -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "LIFTLOCK_"))}
        own = {"HF_ENDPOINT": hub, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
               "LIFTLOCK_TOOLCHAIN": str(tmp_path), "PYTHONPATH": str(ROOT)}  # fmt: skip
        argv = [sys.executable, "-c", PROGRAM, name]
        return subprocess.run(
            argv, capture_output=True, text=True, env={**kept, **own}, cwd=tmp_path, timeout=120, check=False
        )

    return run


def test_anothers_model_of_the_same_name_takes_nobodys_place(resolve: Resolve, tmp_path: Path) -> None:
    ours = write_model(tmp_path / "models" / "base")
    before = {file.name: file.read_bytes() for file in ours.iterdir()}
    hub: FakeHub
    with running_hub() as hub:
        hub.models["evil/base"] = write_model(tmp_path / "evil", shards=2)
        done = resolve("evil/base", hub.endpoint)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / "models" / "evil" / "base")
        asked = len(hub.asked)
        assert resolve("evil/base", hub.endpoint).stdout == done.stdout  # it is there now
        assert len(hub.asked) == asked
    assert {file.name: file.read_bytes() for file in ours.iterdir()} == before
    assert resolve("base").stdout.strip() == str(ours)


@pytest.mark.parametrize("name", ["a/..", "../evil", "org/na me", "org/x;touch PWNED", "nobody/nothing"])
def test_an_id_that_is_none_and_a_hub_that_is_away_are_refused(resolve: Resolve, tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    done = resolve(name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("refused: base_model "), done.stderr
    assert not [one for one in tmp_path.rglob("*") if one.is_file() and "hf" not in one.parts]
