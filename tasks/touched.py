"""Which suites a change touches and by what, and each suite as the two commits have it. Reads files; runs nothing.

A suite is a `release.yaml`. The measure (task, cases, items) is the head's for both sides, the policy is the base's, and
prompt and model are each side's own: a change cannot soften the rule that judges it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evals.suite import SuiteInvalid, load_yaml
from tasks.spec import Release, SpecInvalid, load_release

SPEC = "release.yaml"
PIN = "adapter.yaml"
NEEDED = ("gate", "dataset.test")  # training data is often kept elsewhere
CODE = ("task", "cases", SPEC)  # kinds that can run code here or change the rule
DATA = ("prompt", "adapter", "dataset")
TESTED = ("prompt", "adapter")
MEASURE = ("task", "cases", "dataset")
TRAINING = "training data"


class Pin(BaseModel):
    """adapter.yaml beside a release.yaml: the model that is asked, and which bytes it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="Its name at the endpoint.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="Of its bytes, as `liftlock release --json` prints it (train)."
    )


@dataclass(frozen=True)
class SuiteAt:
    """One suite in one commit. `path` is of its release.yaml in the repository; the spec's paths lie under `tree`."""

    path: str
    tree: Path
    spec: Release
    pin: Pin | None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def files(self) -> dict[str, str]:
        """Kind of change by path in the repository."""
        gate, dataset = self.spec.gate, self.spec.dataset
        named = {
            "prompt": gate.prompt, "task": gate.task, "cases": gate.cases, "dataset": dataset.test,
            TRAINING: dataset.train,
        }  # fmt: skip
        found = {_inside(path, self.tree): kind for kind, path in named.items() if path}
        return {**found, self.path: SPEC, str(PurePosixPath(self.path).with_name(PIN)): "adapter"}


@dataclass(frozen=True)
class Touched:
    """`base` is None for a suite that the change adds."""

    kinds: tuple[str, ...]
    base: SuiteAt | None
    head: SuiteAt


def suites_at(tree: Path, paths: Sequence[str]) -> dict[str, SuiteAt]:
    """By the path of their release.yaml. Raises SpecInvalid or SuiteInvalid, naming files as the repository does."""
    return {path: _load(tree, path) for path in sorted(paths) if PurePosixPath(path).name == SPEC}


def touched_suites(base: dict[str, SuiteAt], head: dict[str, SuiteAt], paths: Sequence[str]) -> tuple[Touched, ...]:
    """In the order of their paths; suites that the head no longer has are left out."""
    found = (Touched(_kinds(base.get(path), suite, set(paths)), base.get(path), suite) for path, suite in head.items())
    return tuple(one for one in found if one.kinds)


def _kinds(base: SuiteAt | None, head: SuiteAt, paths: set[str]) -> tuple[str, ...]:
    files = {**(base.files if base else {}), **head.files}
    kinds = {kind for path, kind in files.items() if path in paths}
    return tuple(kind for kind in ("prompt", "adapter", *MEASURE, SPEC, TRAINING) if kind in kinds)


def _load(tree: Path, path: str) -> SuiteAt:
    try:
        spec = load_release(tree / path, NEEDED)
        pin = (tree / path).with_name(PIN)
        found = SuiteAt(path, tree, spec, _pin(pin) if pin.is_file() else None)
        found.files  # noqa: B018 - raises where a path leaves the repository
        return found
    except (SpecInvalid, SuiteInvalid) as error:
        raise type(error)(str(error).replace(f"{tree}/", "")) from None


def _pin(path: Path) -> Pin:
    try:
        return Pin.model_validate_json(json.dumps(load_yaml(path)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SuiteInvalid(
            f"{path}: {where}: {first['msg']}; it has the keys model and sha256 (64 hex digits)"
        ) from None


def _inside(path: Path, tree: Path) -> str:
    if not path.is_relative_to(tree.resolve()):
        raise SuiteInvalid(f"{path} lies outside the repository; a gate on a change reads files of its commits only")
    return path.relative_to(tree.resolve()).as_posix()
