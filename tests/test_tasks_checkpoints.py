"""A real training of a tiny model that is killed: it goes on from its checkpoint and ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints import (
    SHARE,
    Checkpoint,
    CheckpointUnusable,
    Pace,
    random_states,
    read_checkpoint,
    set_random_states,
    write_checkpoint,
)
from tasks.digests import adapter_sha256
from tasks.lora import LoraRequest
from tasks.settings import ROOT
from tasks.train_child import CHILD_ENVIRONMENT
from tests.fix_tiny_training import LEARNED, STEPS, write_dialogs

pytestmark = pytest.mark.slow(seconds=75)
Event = dict[str, Any]


def request(base: Path, folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    made = LoraRequest(
        base=str(base), dialogs=str(write_dialogs(folder)), out=str(folder / "adapter"),
        checkpoint=str(folder / "checkpoint.safetensors"), **LEARNED,
    )  # fmt: skip
    file = folder / "request.json"
    file.write_text(json.dumps({**asdict(made), **changes}))
    return file


def train(file: Path, killed_after: int | None = None) -> list[Event]:
    """The child's events; with `killed_after` it gets SIGKILL when it has written the checkpoint of that step."""
    events: list[Event] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.lora", str(file)], cwd=ROOT, env={**os.environ, **CHILD_ENVIRONMENT}, stdout=subprocess.PIPE,
        text=True,
    ) as child:  # fmt: skip
        for line in child.stdout or ():
            if line.startswith('{"event"'):  # the libraries print too
                events.append(json.loads(line))
                if killed_after is not None and (events[-1]["event"], events[-1].get("step")) == (
                    "checkpoint",
                    killed_after,
                ):
                    child.send_signal(signal.SIGKILL)
                    break
    assert child.returncode == (-signal.SIGKILL if killed_after is not None else 0)
    return events


def curve(events: list[Event]) -> list[tuple[int, float]]:
    return [(one["step"], one["loss"]) for one in events if one["event"] == "step"]


def written(events: list[Event]) -> list[int]:
    return [one["step"] for one in events if one["event"] == "checkpoint"]


@pytest.fixture(scope="module")
def uninterrupted(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[int, float]]]:
    """(sha256 of the adapter, its curve) of a training that keeps no checkpoints at all."""
    folder = tmp_path_factory.mktemp("whole")
    events = train(request(tiny_base, folder, checkpoint=""))
    assert written(events) == [] and len(curve(events)) == STEPS / 2
    return adapter_sha256(folder / "adapter"), curve(events)


@pytest.mark.parametrize("kills", [(4, 16), (10, 20)], ids=["within an epoch", "between two epochs"])
def test_killed_twice_it_ends_with_the_same_bytes(
    tiny_base, uninterrupted, tmp_path: Path, kills: tuple[int, int]
) -> None:
    file = request(tiny_base, tmp_path)
    train(file, kills[0])
    second = train(file, kills[1])
    assert written(second)[0] == kills[0] + 2  # it did go on, from there
    third = train(file)
    assert written(third)[0] == kills[1] + 2
    assert (adapter_sha256(tmp_path / "adapter"), curve(third)) == uninterrupted
    assert not list(tmp_path.glob("*checkpoint*"))  # it is gone when the adapter is there


def test_a_checkpoint_of_another_request_is_told_and_not_used(tiny_base, uninterrupted, tmp_path: Path) -> None:
    train(request(tiny_base, tmp_path, key="other", seed=4), 6)
    events = train(request(tiny_base, tmp_path))
    (told,) = [one for one in events if one["event"] == "anew"]
    assert "another request" in told["reason"] and written(events)[0] == 2
    assert adapter_sha256(tmp_path / "adapter") == uninterrupted[0]


def test_a_disk_that_takes_nothing_does_not_end_the_training(tiny_base, uninterrupted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events = train(request(tiny_base, tmp_path, checkpoint=str(tmp_path / "file" / "checkpoint.safetensors")))
    assert [one for one in events if one["event"] == "no_checkpoint"]
    assert adapter_sha256(tmp_path / "adapter") == uninterrupted[0]


def test_a_damaged_file_is_not_read(tmp_path: Path) -> None:
    import torch

    file = tmp_path / "checkpoint.safetensors"
    assert read_checkpoint(file, "key") is None
    write_checkpoint(file, "key", Checkpoint({"model/a": torch.arange(4.0)}, {"step": 0.1}))
    found = read_checkpoint(file, "key")
    assert found is not None and found.state == {"step": 0.1} and found.under("model")["a"].tolist() == [0, 1, 2, 3]
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointUnusable, match="cannot be read"):
            read_checkpoint(file, "key")


def test_random_states_through_json_give_the_same_numbers() -> None:
    import random

    import numpy
    import torch

    def drawn() -> list[float]:
        return [random.random(), numpy.random.random(), torch.rand(1).item(), random.gauss(0, 1), numpy.random.normal()]

    drawn()  # a gauss() keeps its second number
    tensors, plain = random_states()
    first = drawn()
    drawn()
    set_random_states(tensors, json.loads(json.dumps(plain)))
    assert drawn() == first


def test_what_takes_long_to_write_is_written_less_often() -> None:
    pace = Pace(30)
    assert not pace.due()
    pace.written(0.1)
    assert pace._wait == 30
    pace.written(6)
    assert 6 / pace._wait == SHARE
