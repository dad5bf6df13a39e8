"""transformers' Trainer with the checkpoints of tasks/checkpoints.py in place of its own, which are pickles in many files.

It goes on in the middle of an epoch with the order of the items that this epoch had: the order is drawn from the random state
at the epoch's begin, so that state is kept beside the one of the step.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import (
    Checkpoint,
    Pace,
    capture,
    random_states,
    restore_model,
    restore_optimizer,
    set_random_states,
    write_checkpoint,
)

if TYPE_CHECKING:
    from tasks.lora import TrainingPoint

STATE_FILE = "trainer_state.json"  # transformers reads the step and the schedule from it


def resumable(trainer: Any) -> Any:
    """The class with `save` (called when a checkpoint is wanted) and `found` (to go on from)."""

    class Resumable(trainer):  # type: ignore[misc]
        save: Callable[[], None]
        found: Checkpoint

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            self.save()

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            restore_model(self, self.found)

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            if checkpoint is not None:
                restore_optimizer(self, self.found)

        def _load_rng_state(self, checkpoint: str | None) -> None:
            if checkpoint is not None:
                set_random_states(self.found.under("random"), self.found.state["random"])

    return Resumable


def train_resumably(
    trainer: Any,
    file: Path | None,
    key: str,
    found: Checkpoint | None,
    seconds: float,
    curve: Sequence[TrainingPoint],
    say: Callable[..., None],
) -> None:
    """Train to the end, from `found` on; with `file` a checkpoint every `seconds` of a training that logs its loss."""
    if file is not None:
        keeper = _Keeper(trainer, file, key, curve, say)
        trainer.save = keeper.save
        trainer.add_callback(_callback(keeper, Pace(seconds), found))
    if found is None:
        trainer.train()
        return
    trainer.found = found
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STATE_FILE).write_text(json.dumps(found.state["trainer"]))
        trainer.train(resume_from_checkpoint=folder)


class _Keeper:
    """Writes the checkpoints of one training. A disk that is full is told and does not end it."""

    def __init__(
        self, trainer: Any, file: Path, key: str, curve: Sequence[TrainingPoint], say: Callable[..., None]
    ) -> None:
        self.trainer, self.file, self.key, self.curve, self.say = trainer, file, key, curve, say
        self.epoch_states = random_states()
        self.took = 0.0

    def save(self) -> None:
        began, step = time.monotonic(), self.trainer.state.global_step
        made = capture(self.trainer, random_states() if self._epoch_ended() else self.epoch_states)
        try:
            write_checkpoint(
                self.file,
                self.key,
                Checkpoint(made.tensors, {**made.state, "curve": [asdict(one) for one in self.curve]}),
            )
        except OSError as error:
            self.say("no_checkpoint", step=step, reason=f"{self.file}: {error.strerror}")
        self.took = time.monotonic() - began
        self.say("checkpoint", step=step, seconds=round(self.took, 3))

    def _epoch_ended(self) -> bool:
        """Then the next one begins with the random state of now."""
        return float(self.trainer.state.epoch).is_integer()


def _callback(keeper: _Keeper, pace: Pace, found: Checkpoint | None) -> Any:
    from transformers import TrainerCallback

    class Keep(TrainerCallback):  # type: ignore[misc]
        resumed = found

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.resumed:
                set_random_states(self.resumed.under("epoch"), self.resumed.state["epoch"])
                self.resumed = None
            keeper.epoch_states = random_states()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Only beside a logged loss: its mean over the steps since the last one is not kept."""
            logged = state.global_step % state.logging_steps == 0
            control.should_save = logged and state.global_step < state.max_steps and pace.due()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pace.written(keeper.took)

    return Keep()
