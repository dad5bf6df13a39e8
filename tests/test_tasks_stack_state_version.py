"""An older layout is migrated with a backup; a newer one is refused before anything is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.exit_codes import code_of
from tasks.stack.state_version import STATE_VERSION, StateTooNew, ensure_version, prepare_state
from tests.fix_promotion import killed
from tests.fix_stack import ROOT


def test_a_folder_without_a_number_gets_one_and_keeps_it(tmp_path: Path) -> None:
    ensure_version(tmp_path)
    assert (tmp_path / "version").read_text() == f"{STATE_VERSION}\n"
    ensure_version(tmp_path)


def older(state: Path, number: str | None) -> None:
    """As the first layout left it, with or without its number."""
    (state / "gateway").mkdir(parents=True)
    state.chmod(0o711)
    for name, text in {"ports.json": "{}", "postgres.password": "secret", "gateway/keys.json": "[]"}.items():
        (state / name).write_text(text)
    (state / "postgres.password").chmod(0o600)
    if number:
        (state / "version").write_text(number)


@pytest.mark.parametrize("number", ["1\n", None])
def test_an_older_layout_is_closed_and_its_description_backed_up(tmp_path: Path, number: str | None) -> None:
    state, said = tmp_path / "state", list[str]()
    older(state, number)
    prepare_state(state, said.append)
    (kept,) = (state / "backups").iterdir()
    assert (kept / "postgres.password").read_text() == "secret" and (kept / "gateway" / "keys.json").read_text() == "[]"
    assert (kept / "postgres.password").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o007 == 0 and (state / "version").read_text() == f"{STATE_VERSION}\n"
    assert len(said) == 1 and str(kept) in said[0]
    prepare_state(state, said.append)
    assert len(said) == 1 and len(list((state / "backups").iterdir())) == 1


def test_a_migration_that_is_killed_is_done_by_the_next(tmp_path: Path) -> None:
    older(tmp_path / "state", "1")

    def fatal(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: prepare_state(tmp_path / "state", fatal))  # after the number was written
    assert (tmp_path / "state" / "version").read_text() == f"{STATE_VERSION}\n"
    (tmp_path / "state" / "version").write_text("1")  # as before it was
    prepare_state(tmp_path / "state", lambda _: None)
    assert (tmp_path / "state" / "version").read_text() == f"{STATE_VERSION}\n"


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
