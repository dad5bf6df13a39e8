"""Keeps the starts that residuals are learned from in one JSON file of the state folder."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from serving.fit.residuals import Start

FILE = "fit-residuals.json"
_STARTS = TypeAdapter(tuple[Start, ...])


class ResidualsInvalid(Exception):
    """The file of residuals cannot be read."""


def load_starts(state: Path) -> tuple[Start, ...]:
    """Empty where there is no file. Raises ResidualsInvalid."""
    path = state / FILE
    try:
        return _STARTS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ResidualsInvalid(
            f"{path} is not what `liftlock fit calibrate` wrote ({str(error).splitlines()[0]}). "
            "Remove it and calibrate again."
        ) from error


def add_starts(state: Path, starts: Iterable[Start]) -> tuple[Start, ...]:
    """All starts that are known now; a log that was read before is replaced. Raises ResidualsInvalid."""
    known = {start.log: start for start in (*load_starts(state), *starts)}
    everything = tuple(known.values())
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=state, prefix=f".{FILE}.", delete=False) as file:
        json.dump([asdict(start) for start in everything], file, indent=1)
    Path(file.name).replace(state / FILE)
    return everything
