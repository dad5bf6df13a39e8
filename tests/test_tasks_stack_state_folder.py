"""The state folder is its owner's alone; root's Postgres passes through and nobody else does."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.exit_codes import code_of
from tasks.stack.parts import postgres_user
from tasks.stack.state_folder import StateShared, close_to_others

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def state() -> Iterator[Path]:
    """In a folder that every user can reach, open as an older Liftlock made it."""
    with tempfile.TemporaryDirectory(prefix="liftlock-test-") as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "state"
        made.mkdir()
        made.chmod(0o711)
        (made / "inside").write_text("seen")
        (made / "inside").chmod(0o644)
        yield made


def done_as(user: int, group: int, body: Callable[[], object]) -> bool:
    """Whether `body` ran without an error in a process of that user."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            body()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of pytest may run in this process
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


@AS_ROOT
def test_for_root_postgres_user_passes_and_another_user_does_not(state: Path) -> None:
    close_to_others(state)
    entry = pwd.getpwnam(postgres_user() or "")
    assert stat.S_IMODE(state.stat().st_mode) == 0o710 and state.stat().st_uid == 0
    assert done_as(entry.pw_uid, entry.pw_gid, (state / "inside").read_text)
    assert not done_as(entry.pw_uid, entry.pw_gid, lambda: list(state.iterdir()))
    assert not done_as(54321, 54321, (state / "inside").read_text)


@AS_ROOT
def test_for_any_other_user_it_is_0700(state: Path) -> None:
    os.chown(state, 54321, 54321)
    assert done_as(54321, 54321, lambda: close_to_others(state))
    assert stat.S_IMODE(state.stat().st_mode) == 0o700 and state.stat().st_uid == 54321


@AS_ROOT
def test_a_volume_that_somebody_else_owns_stays_as_it_is(state: Path) -> None:
    state.chmod(0o2775)
    assert done_as(54321, 54321, lambda: close_to_others(state))
    assert stat.S_IMODE(state.stat().st_mode) == 0o2775


def test_a_shared_folder_is_refused_and_left_alone(state: Path) -> None:
    state.chmod(0o1777)
    with pytest.raises(StateShared, match="required: one that its owner alone may enter"):
        close_to_others(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o1777
    assert code_of(StateShared()) == 2


def test_the_log_of_a_part_is_not_read_through_a_link(state: Path) -> None:
    (state / "logs").mkdir()
    (state / "logs" / "vllm.log").symlink_to(state / "inside")
    (state / "logs" / "envoy.log").write_text("its own\n")
    said = {name: _logs(state, name) for name in ("vllm", "envoy", "../inside", "")}
    assert [one.returncode for one in said.values()] == [2, 0, 2, 2]
    assert said["envoy"].stdout == "its own\n" and "seen" not in said["vllm"].stdout + said["vllm"].stderr


def _logs(state: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "logs", name], capture_output=True, text=True, check=False,
        env={**os.environ, "LIFTLOCK_STATE": str(state), "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
