"""A state folder of a newer layout is refused before anything is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.exit_codes import code_of
from tasks.stack.state_version import STATE_VERSION, StateTooNew, ensure_version
from tests.fix_stack import ROOT


def test_a_folder_without_a_number_gets_one_and_keeps_it(tmp_path: Path) -> None:
    ensure_version(tmp_path)
    assert (tmp_path / "version").read_text() == f"{STATE_VERSION}\n"
    ensure_version(tmp_path)


@pytest.mark.parametrize("number", [str(STATE_VERSION + 1), "0", "", "one", "-1", "²"])
def test_another_layout_is_refused_and_left_alone(tmp_path: Path, number: str) -> None:
    (tmp_path / "version").write_text(number)
    with pytest.raises(StateTooNew, match="Nothing was changed"):
        ensure_version(tmp_path)
    assert (tmp_path / "version").read_text() == number
    assert code_of(StateTooNew()) == 2


def test_up_refuses_it_in_one_sentence_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("99")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli", "up"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "has layout '99', this Liftlock knows" in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"version", "up.lock"}
