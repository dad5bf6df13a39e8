"""Child processes: progress is told, the environment is changed for the child only, and nothing outlives its limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from evals.child import DONE, PROGRESS, Finished, StandingChild, run_child

SHELL = ("sh", "-c")


def run(tmp_path: Path, script: str, *, timeout_s: float = 10, told: list[tuple[int, int]] | None = None) -> Finished:
    return run_child(
        [*SHELL, script],
        cwd=tmp_path,
        log=tmp_path / "log",
        timeout_s=timeout_s,
        total=5,
        progress=lambda done, total: (told if told is not None else []).append((done, total)),
        set_env={"COLOUR": "a b=c"},
        unset_env=("HOME", "NEVER_SET"),
    )


def test_progress_lines_are_counted_and_other_output_is_not(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(tmp_path, f"echo hello; echo {PROGRESS} 2; echo {PROGRESS} x; echo {PROGRESS} 1; echo {PROGRESS} 9", told=told)
    assert told == [(2, 5), (3, 5), (5, 5)]


def test_the_environment_is_the_childs_alone(tmp_path: Path) -> None:
    finished = run(tmp_path, 'echo "$COLOUR ${HOME-none}" >&2; exit 7')
    assert (finished.returncode, finished.tail, finished.timed_out) == (7, "a b=c none", False)
    assert "COLOUR" not in os.environ


def test_the_tail_of_a_long_log_is_short(tmp_path: Path) -> None:
    assert run(tmp_path, "seq 1 500 >&2").tail.splitlines() == [str(i) for i in range(489, 501)]


def test_a_child_is_killed_at_its_limit_with_its_own_children(tmp_path: Path) -> None:
    started = time.monotonic()
    finished = run(tmp_path, "sleep 30 & echo $! > pid; wait", timeout_s=0.3)
    assert finished.timed_out
    assert time.monotonic() - started < 5
    assert_gone(int((tmp_path / "pid").read_text()))


def test_an_exception_in_the_caller_kills_the_child(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    script = f"echo $$ > pid; echo {PROGRESS} 1; exec sleep 30"
    with pytest.raises(KeyboardInterrupt):
        run_child(
            [*SHELL, script], cwd=tmp_path, log=tmp_path / "log", timeout_s=20, total=1, progress=stop, set_env={}
        )
    assert_gone(int((tmp_path / "pid").read_text()))


def standing(tmp_path: Path, script: str) -> StandingChild:
    return StandingChild([*SHELL, script], cwd=tmp_path, log=tmp_path / "log", set_env={})


def test_a_standing_child_answers_one_request_after_another(tmp_path: Path) -> None:
    script = f"while read line; do echo $$ $line >> asked; echo {PROGRESS} 2; echo {DONE}; done"
    told: list[tuple[int, int]] = []
    with standing(tmp_path, script) as child:
        for request in ({"n": 1}, {"n": 2}):
            assert child.ask(request, timeout_s=10, total=2, progress=lambda *both: told.append(both)) is None
    lines = [line.split(" ", 1) for line in (tmp_path / "asked").read_text().splitlines()]
    assert [text for _, text in lines] == ['{"n": 1}', '{"n": 2}']
    assert told == [(2, 2), (2, 2)]
    assert lines[0][0] == lines[1][0]  # the same process
    assert_gone(int(lines[0][0]))


def test_a_standing_child_that_ends_or_hangs_says_how(tmp_path: Path) -> None:
    with standing(tmp_path, "read line; echo no >&2; exit 3") as child:
        ended = child.ask({}, timeout_s=10, total=1, progress=lambda done, total: None)
        assert ended == Finished(3, "no", False)
    with standing(tmp_path, "echo $$ > pid; sleep 30") as child:
        late = child.ask({}, timeout_s=0.3, total=1, progress=lambda done, total: None)
        assert late is not None
        assert late.timed_out
    assert_gone(int((tmp_path / "pid").read_text()))


def assert_gone(pid: int) -> None:
    """Dead: no such process, or a zombie that its new parent has not read yet."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still alive")
