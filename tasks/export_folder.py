"""Reads what `liftlock export` wrote, and believes none of it: sums first, then names, then the ledger's own hashes.

Every path is one that SHA256SUMS lists, below the folder and no link, so nothing outside of it is read or named.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from tasks.promotion.ledger import Line, line_hash

SUMS = "SHA256SUMS"
SUM = re.compile(r"([0-9a-f]{64})  ([^\0\r\n]+)")
LARGEST_BYTES = 256 << 20  # of one file; the largest of a real export is an eval report of some MiB
Number = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
RunFolder = re.compile(r"[0-9]{8}-[0-9]{6}-[A-Za-z0-9]+")
Name = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
Key = re.compile(r"[0-9a-f]{12,128}")


class ExportInvalid(Exception):
    """The folder is not whole, was changed, or is no export."""


class VersionFacts(BaseModel):
    """versions/N/version.json."""

    name: str
    version: Number
    aliases: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]]
    tags: dict[str, str]
    run_id: str
    source: str = ""


class RunFacts(BaseModel):
    """versions/N/run.json."""

    params: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class ExportedVersion:
    """`evidence` are the files of its promotion."""

    facts: VersionFacts
    run: RunFacts
    evidence: tuple[Path, ...]


@dataclass(frozen=True)
class Exported:
    """A whole export. `digest` is the sha256 of its SHA256SUMS; `reports` are folders with run.json, by run."""

    folder: Path
    digest: str
    name: str
    versions: tuple[ExportedVersion, ...]
    ledger: tuple[Line, ...]
    images: tuple[str, ...]
    reports: tuple[tuple[str, Path], ...]


def read_export(folder: Path) -> Exported:
    """Raises ExportInvalid, before anything else is read than the sums."""
    files = _whole(folder)
    try:
        versions = _versions(folder, files)
        name = versions[0].facts.name
        ledger = _ledger(folder, name)
        images = [str(one["reference"]) for one in _json(folder / "images.json").values()]
    except (
        ValidationError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        RecursionError,
    ) as error:
        said = str(error).replace("\n", " ")[:200]
        raise ExportInvalid(f"{folder} is no export of this Liftlock: {type(error).__name__}: {said}") from None
    if not Name.fullmatch(name) or any(one.facts.name != name for one in versions):
        raise ExportInvalid(
            f"{folder} names the model {name[:100]!r}, required: one name of small letters, digits, . _ -"
        )
    digest = hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()
    return Exported(folder, digest, name, versions, ledger, tuple(images), _reports(folder, files))


def _whole(folder: Path) -> list[str]:
    """The files that the sums list, each there with its bytes, and no others."""
    if not folder.is_dir() or not (folder / SUMS).is_file() or (folder / SUMS).is_symlink():
        raise ExportInvalid(f"{folder} has no {SUMS}, required: a folder that `liftlock export NAME` wrote")
    rows = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    sums = {found[2]: found[1] for row in rows if (found := SUM.fullmatch(row)) and _inside(found[2])}
    if len(sums) != len(rows) or not sums:
        raise ExportInvalid(
            f"{folder}/{SUMS} has a line that is no sum of a file in this folder, or none; export it again"
        )
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    del there[SUMS]
    for odd, kind in ((sums.keys() - there.keys(), "is missing"), (there.keys() - sums.keys(), f"is not in {SUMS}")):
        if odd:
            raise ExportInvalid(f"{folder}/{min(odd)} {kind}: the folder is half or was changed; export it again")
    for path, expected in sums.items():
        _check(there[path], expected)
    return sorted(sums)


def _inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and pure.as_posix() == path and path != SUMS


def _check(file: Path, expected: str) -> None:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST_BYTES:
        raise ExportInvalid(
            f"{file} is a link, no plain file, or larger than {LARGEST_BYTES >> 20} MiB; export it again"
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise ExportInvalid(
            f"{file} has the sha256 {found[:16]}…, {SUMS} says {expected[:16]}…: it was changed; export it again"
        )


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _versions(folder: Path, files: list[str]) -> tuple[ExportedVersion, ...]:
    found = []
    for path in files:
        if not (match := re.fullmatch(r"versions/([^/]+)/version\.json", path)):
            continue
        home = folder / "versions" / match[1]
        facts = VersionFacts.model_validate(_json(home / "version.json"))
        key = facts.tags.get("liftlock.evidence")
        if facts.version != match[1] or (key is not None and not Key.fullmatch(key)):
            raise ValueError(f"{path} names version {facts.version} and evidence {key}")
        prefix = f"versions/{match[1]}/evidence/"
        evidence = tuple(
            folder / one for one in files if one.startswith(prefix) and "/" not in one.removeprefix(prefix)
        )
        found.append(ExportedVersion(facts, RunFacts.model_validate(_json(home / "run.json")), evidence))
    return tuple(sorted(found, key=lambda one: int(one.facts.version)))


def _ledger(folder: Path, name: str) -> tuple[Line, ...]:
    rows = (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    found = tuple(TypeAdapter(Line).validate_json(row) for row in rows)
    for line in found:
        if line.model != name or line_hash(line) != line.hash:
            raise ValueError(f"line {line.id} of ledger.jsonl is of {line.model!r}, or its content has another hash")
    if [line.id for line in found] != sorted({line.id for line in found}):
        raise ValueError("the lines of ledger.jsonl are not in order")
    return found


def _reports(folder: Path, files: list[str]) -> tuple[tuple[str, Path], ...]:
    found = [PurePosixPath(path) for path in files if re.fullmatch(r"reports/[^/]+/run\.json", path)]
    return tuple((path.parts[1], folder / path.parent) for path in found if RunFolder.fullmatch(path.parts[1]))
