"""A training's checkpoint: one safetensors file with the adapter, the optimizer's state and torch's random states, and the rest as
JSON in its header. A training that goes on from it ends with the bytes of one that was never interrupted.

It is replaced whole, so a kill leaves the old one or the new one, and nothing in it is pickled. One of another request or of
other library versions is not used. What it does not do: sharded models, several processes.
"""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.digests import digest_of

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
SHARE = 0.02
"""Of the training's time, at most, that goes into writing; a checkpoint that takes long is written less often."""


class CheckpointUnusable(Exception):
    """The file is damaged, or of another training; the training has to begin anew."""


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by "model/NAME", "optimizer/INDEX/NAME", "random/NAME"; `state` is the JSON part."""

    tensors: dict[str, Any]
    state: dict[str, Any]

    def under(self, room: str) -> dict[str, Any]:
        return {name[len(room) + 1 :]: value for name, value in self.tensors.items() if name.startswith(f"{room}/")}


def fingerprint(key: str) -> str:
    """Of what must be equal for the same bytes: the request, and the libraries that compute."""
    return digest_of(key, [(name, version(name)) for name in LIBRARIES])


def write_checkpoint(file: Path, key: str, checkpoint: Checkpoint) -> None:
    """Raises OSError."""
    from safetensors.torch import save

    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"fingerprint": fingerprint(key), "state": json.dumps(checkpoint.state)}
    temporary = file.with_name(f".{file.name}.new")
    with temporary.open("wb") as handle:
        handle.write(save(checkpoint.tensors, header))
        handle.flush()
        os.fsync(handle.fileno())  # a node that is taken away may lose what is not on the disk
    temporary.replace(file)


def remove_checkpoint(file: Path) -> None:
    """And what a kill in the middle of a write left. One that stays does no harm."""
    for one in (file, file.with_name(f".{file.name}.new")):
        with suppress(OSError):
            one.unlink(missing_ok=True)


def read_checkpoint(file: Path, key: str) -> Checkpoint | None:
    """None where there is none. Raises CheckpointUnusable."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping
        state = json.loads(header["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointUnusable(f"{file} cannot be read: {error}") from None
    if header.get("fingerprint") != fingerprint(key):
        raise CheckpointUnusable(f"{file} is of another request or of other library versions")
    return Checkpoint(tensors, state)


def random_states() -> tuple[dict[str, Any], dict[str, Any]]:
    """(torch's as tensors, Python's and numpy's as JSON)."""
    import numpy
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    name, keys, *rest = numpy.random.get_state(legacy=True)
    return tensors, {"python": random.getstate(), "numpy": [name, numpy.asarray(keys).tolist(), *rest]}


def set_random_states(tensors: dict[str, Any], plain: dict[str, Any]) -> None:
    import numpy
    import torch

    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    release, words, gauss = plain["python"]
    random.setstate((release, tuple(words), gauss))
    numpy.random.set_state(tuple(plain["numpy"]))


class Pace:
    """When the next checkpoint is due: every `seconds`, or later where writing one would take more than SHARE of the time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._wait = seconds, seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._wait

    def written(self, took: float) -> None:
        self._last = time.monotonic()
        self._wait = max(self.seconds, took / SHARE) if self.seconds else 0.0


def capture(trainer: Any, epoch_states: tuple[dict[str, Any], dict[str, Any]]) -> Checkpoint:
    """Everything that the next step depends on. `epoch_states` are the random states at the epoch's begin, which its order of
    the items was drawn from."""
    optimizer, (tensors, plain) = trainer.optimizer.state_dict(), random_states()
    kept = {f"model/{name}": value.detach() for name, value in _trained(trainer)}
    for index, values in optimizer["state"].items():
        kept |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
    kept |= {f"random/{name}": value for name, value in tensors.items()}
    kept |= {f"epoch/{name}": value for name, value in epoch_states[0].items()}
    state = {
        "random": plain, "epoch": epoch_states[1], "groups": optimizer["param_groups"],
        "scheduler": trainer.lr_scheduler.state_dict(), "trainer": asdict(trainer.state),
    }  # fmt: skip
    return Checkpoint({name: value.cpu().contiguous().clone() for name, value in kept.items()}, state)


def _trained(trainer: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in trainer.model.named_parameters() if value.requires_grad]


def restore_model(trainer: Any, checkpoint: Checkpoint) -> None:
    import torch

    found, trained = checkpoint.under("model"), dict(_trained(trainer))
    if found.keys() != trained.keys():
        raise CheckpointUnusable("its parameters are not those of this training")
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(found[name])


def restore_optimizer(trainer: Any, checkpoint: Checkpoint) -> None:
    """The learning rate's schedule too."""
    state: dict[int, dict[str, Any]] = {}
    for path, value in checkpoint.under("optimizer").items():
        index, _, name = path.partition("/")
        state.setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict({"state": state, "param_groups": checkpoint.state["groups"]})
    trainer.lr_scheduler.load_state_dict(checkpoint.state["scheduler"])
