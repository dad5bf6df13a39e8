"""A child process: its events, its last words, and that nothing of it is left."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.child import ChildFailed, run_child

# a grandchild as the data loaders of a training have it; it outlives whoever does not kill the group
GRANDCHILD = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"event": "started", "pid": child.pid}), flush=True)
"""


def run(code: str, tmp_path: Path, *, timeout: float = 60, **env: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    argv = [sys.executable, "-u", "-c", code]
    run_child(argv, what="training", on_event=events.append, env=env, timeout=timeout, cwd=tmp_path)
    return events


def is_running(pid: int) -> bool:
    """A killed process nobody has waited for yet is a zombie: Z in its stat file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is left running"
        time.sleep(0.02)


def test_events_come_in_order_and_chatter_is_ignored(tmp_path: Path) -> None:
    code = r"""
import sys
print("loading weights: 10%|#", end="\r")
print('{"event": "step", "loss": 0.5, "note": "é 🚢"}')
print('{"half": ')
print('{"no": "event"}')
print('[{"event": "in a list"}]')
print(' {"event": "indented"}')
print("")
sys.stdout.buffer.write(b"\xff\xfe not UTF-8\n")
print("warning", file=sys.stderr)
print('{"event": "done"}', end="")
"""
    found = run(code, tmp_path, PYTHONIOENCODING="utf-8")
    assert found == [{"event": "step", "loss": 0.5, "note": "é 🚢"}, {"event": "done"}]


def test_it_runs_in_its_folder_with_the_environment_added(tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps({'event': 'e', 'cwd': os.getcwd(), 'env': [os.environ['A'], os.environ['PATH']]}))"
    (found,) = run(code, tmp_path, A="b c")
    assert found == {"event": "e", "cwd": str(tmp_path), "env": ["b c", os.environ["PATH"]]}


def test_the_last_words_are_in_the_message(tmp_path: Path) -> None:
    code = """
import sys
print("long ago\\n\\nTraceback: x\\n\\nat line 3", file=sys.stderr)
raise SystemExit("CUDA out of memory")
"""
    with pytest.raises(ChildFailed) as failed:
        run(code, tmp_path)
    assert str(failed.value) == "training ended with exit code 1: Traceback: x | at line 3 | CUDA out of memory"


def test_last_words_that_are_no_text_are_still_words(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.buffer.write(b'bad byte \\xff in the corpus\\n'); sys.exit(3)"
    with pytest.raises(ChildFailed, match=r"exit code 3: bad byte .* in the corpus"):
        run(code, tmp_path)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os._exit(7)", "exit code 7: it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9: it said nothing"),
    ],
)
def test_a_silent_end_is_said(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(ChildFailed, match=said):
        run(code, tmp_path)


def test_the_last_words_are_short(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as failed:
        run("import sys; print('x' * 100_000, file=sys.stderr); sys.exit(1)", tmp_path)
    assert len(str(failed.value)) < 700


def test_a_refusal_is_the_callers_to_read(tmp_path: Path) -> None:
    code = """print('{"event": "refused", "reason": "no rows"}'); raise SystemExit(3)"""
    assert run(code, tmp_path) == [{"event": "refused", "reason": "no rows"}]


def test_it_is_stopped_after_its_time_with_its_children(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    argv = [sys.executable, "-u", "-c", GRANDCHILD + "time.sleep(600)"]
    began = time.monotonic()
    with pytest.raises(ChildFailed, match="training took more than 2 s and was stopped; raise its timeout"):
        run_child(argv, what="training", on_event=events.append, env={}, timeout=2, cwd=tmp_path)
    assert time.monotonic() - began < 20
    assert_gone(events[0]["pid"])


@pytest.mark.parametrize("end", ["", "raise SystemExit(1)"])
def test_no_grandchild_outlives_its_end(tmp_path: Path, end: str) -> None:
    """The grandchild has closed the pipe, as a daemon does."""
    code = GRANDCHILD.replace("])", "], stdout=subprocess.DEVNULL)") + end
    events: list[dict[str, Any]] = []
    argv = [sys.executable, "-u", "-c", code]
    try:
        run_child(argv, what="training", on_event=events.append, env={}, timeout=60, cwd=tmp_path)
    except ChildFailed:
        assert end
    assert_gone(events[0]["pid"])


def test_a_reader_that_fails_ends_the_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(event: dict[str, Any]) -> None:
        pids.append(event["pid"])
        raise KeyboardInterrupt

    argv = [sys.executable, "-u", "-c", GRANDCHILD + "time.sleep(600)"]
    with pytest.raises(KeyboardInterrupt):
        run_child(argv, what="training", on_event=fail, env={}, timeout=60, cwd=tmp_path)
    assert_gone(pids[0])


def test_a_program_that_is_not_there_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_child([str(tmp_path / "no")], what="x", on_event=print, env={}, timeout=1, cwd=tmp_path)


def test_times_out_by_the_clock_of_the_child_and_not_of_its_talk(tmp_path: Path) -> None:
    """One that talks without end is stopped as well."""
    code = "while True: print('{\"event\": \"step\"}' + ' ' * 1000)"
    with pytest.raises(ChildFailed, match="took more than 1 s"):
        run(code, tmp_path, timeout=1)
