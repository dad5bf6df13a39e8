"""`liftlock rollout` on a state folder: what it prints, and its exit codes where there is nothing to tell."""

import json
from pathlib import Path

import pytest

from serving.rollout.kept import Rollouts
from serving.rollout.machine import Done, Restarted, State
from tests.fix_stack import Stack


@pytest.fixture
def made(tmp_path: Path) -> Stack:
    kept = Rollouts(tmp_path / "rollouts" / "tickets").begin(State("tickets", "t-2", "t-1", (10, 100), 60))
    action = kept.tell(Restarted())
    for _ in range(2):
        assert action
        action = kept.tell(Done(action.turn))
    return Stack(tmp_path)


def test_status_and_history_say_where_it_stands(made: Stack) -> None:
    told = made.run("rollout", "status", "tickets", "--json")
    document = json.loads(told.stdout)
    assert (document["phase"], document["weight"], document["steps"]) == ("watching", 10, [])
    assert "watching  t-2 over t-1  60 s left to decide  step 1 of 2, 10 % asked for" in made.run("rollout", "history", "tickets").stdout  # fmt: skip


def test_a_pause_is_kept_for_the_pipeline_and_a_model_without_rollout_is_bad_input(made: Stack) -> None:
    assert made.run("rollout", "pause", "tickets").returncode == 0
    command = made.state / "rollouts" / "tickets" / "0001" / "command.json"
    assert json.loads(command.read_text())["command"] == "pause"
    refused = made.run("rollout", "status", "nobody")
    assert refused.returncode == 2
    assert "nobody has no rollout yet" in refused.stderr
