"""`liftlock rollout` on a state folder: what it prints, and its exit codes where there is nothing to tell."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flows.rollout_view import view
from serving.rollout.kept import Rollouts
from serving.rollout.kept_steps import Shown, keep_step, last_look
from serving.rollout.machine import Aborted, Done, Restarted, State
from serving.rollout.model import Finding, Share, SideStats, Step
from tests.fix_stack import Stack

WAY = "pool: 5 adapters for 4 LoRA slots; two engines of 3.1 GiB fit into 20.7 GiB; sticky by x-session-id"


@pytest.fixture
def made(tmp_path: Path) -> Stack:
    kept = Rollouts(tmp_path / "rollouts" / "tickets").begin(State("tickets", "t-2", "t-1", (10, 100), 60, way=WAY))
    action = kept.tell(Restarted())
    for _ in range(2):
        assert action
        action = kept.tell(Done(action.turn))
    return Stack(tmp_path)


def test_status_and_history_say_where_it_stands(made: Stack) -> None:
    told = made.run("rollout", "status", "tickets", "--json")
    document = json.loads(told.stdout)
    assert document["way"] == WAY
    assert (document["phase"], document["weight"], document["steps"]) == ("watching", 10, [])
    assert "watching  t-2 over t-1  60 s left to decide  step 1 of 2, 10 % asked for" in made.run("rollout", "history", "tickets").stdout  # fmt: skip
    assert "or `liftlock rollout abort tickets`" in made.run("rollout", "status", "tickets").stdout


def test_a_pause_is_kept_for_the_pipeline_and_a_model_without_rollout_is_bad_input(made: Stack) -> None:
    assert made.run("rollout", "pause", "tickets").returncode == 0
    command = made.state / "rollouts" / "tickets" / "0001" / "command.json"
    assert json.loads(command.read_text())["command"] == "pause"
    refused = made.run("rollout", "status", "nobody")
    assert refused.returncode == 2
    assert "nobody has no rollout yet" in refused.stderr


@pytest.mark.parametrize("name", ["nobody", "../../elsewhere", "; touch x"])
def test_an_abort_of_what_has_no_rollout_makes_nothing(tmp_path: Path, name: str) -> None:
    refused = Stack(tmp_path / "state").run("rollout", "abort", name)
    assert refused.returncode == 2 and "rollout" in refused.stderr and "Traceback" not in refused.stderr
    assert not list(tmp_path.rglob("rollouts/*"))


SLOW = Finding(
    "first_token", 0.1, 0.25, 2.1, 3.0, 512.0, 460.0, "undo", "median first token 250 ms against 100 ms of stable"
)
STEP = Step(
    10,
    SideStats("t-1", 90, 0, ()),
    SideStats("t-2", 10, 0, ()),
    "undo",
    "it is slow",
    3.0,
    Share(0.1, 10, 100, 0.02, 0.25, True),
    (SLOW,),
)


def test_the_live_view_shows_the_look_while_a_step_is_watched_and_ends_with_the_rollout(made: Stack) -> None:
    kept = Rollouts(made.state / "rollouts" / "tickets").last()
    Shown(kept.folder).show(STEP)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(view(kept))
    screen = console.export_text()
    assert "tickets: t-2 over t-1, watching" in screen
    assert WAY in screen
    assert "step 1 of 2: [10 %]  100 %   60 s left to decide" in screen
    assert "asked 10 %, observed 10.0% [2.0%, 25.0%], 10 and 90 requests" in screen
    assert "250 ms" in screen and "2.10 to 3.00 times" in screen and "512 of 460" in screen
    kept.tell(Aborted("seen enough"))
    for _ in range(3):
        kept.tell(Done(kept.state.turn))
    keep_step(kept, STEP)
    assert f"\n  {WAY}\n" in made.run("rollout", "status", "tickets").stdout
    shown = made.run("rollout", "status", "tickets", "--watch")
    assert shown.returncode == 0
    assert "undone" in shown.stdout and "10 %: undo, it is slow" in shown.stdout and "seen enough" in shown.stdout


def test_looks_are_written_at_most_twice_a_second(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    shown.show(STEP)
    shown.show(replace(STEP, weight=50))
    assert last_look(tmp_path) == STEP
    assert last_look(tmp_path / "nowhere") is None
