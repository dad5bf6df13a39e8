"""Delivery chains that a change touches: each folder with a chain.yaml is checked for coherence as the two commits have it. Reads files.

The chain.yaml in force is the base's, so that a change cannot suppress what it brings. Findings that were there before
are counted and judge nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path, PurePosixPath

from evals.gated import GatedChain
from serving.coherence.check import Checked, Grouped, check

CHAIN = "chain.yaml"
Key = tuple[str, str, str, str]


def chain_folders(paths: Sequence[str]) -> tuple[str, ...]:
    """Folders of a commit that hold a chain.yaml."""
    return tuple(sorted({str(PurePosixPath(path).parent) for path in paths if PurePosixPath(path).name == CHAIN}))


def chain_files(folders: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """Those of `paths` that lie in one of the folders."""
    return tuple(path for path in paths if any(_inside(path, folder) for folder in folders))


def gate_chains(base: Path, head: Path, folders: Sequence[str], paths: Sequence[str]) -> tuple[GatedChain, ...]:
    """The folders in which one of `paths` lies, on the trees of both commits. Overwrites the head's chain.yaml by the base's.

    Raises InputInvalid, YamlRefused, DurationInvalid.
    """
    return tuple(_gate(base, head, folder) for folder in folders if chain_files((folder,), paths))


def _gate(base: Path, head: Path, folder: str) -> GatedChain:
    before, after = base / folder / CHAIN, head / folder / CHAIN
    known: dict[Key, str] = {}
    softened = False
    if before.is_file():
        softened = before.read_bytes() != after.read_bytes()
        shutil.copyfile(before, after)
        known = _findings(base, folder)
    found = _findings(head, folder)
    new = tuple(said for key, said in found.items() if key not in known)
    notes = ("The change edits chain.yaml: the one in force is the one before the change.",) if softened else ()
    return GatedChain(folder, new, len(found) - len(new), notes)


def _findings(tree: Path, folder: str) -> dict[Key, str]:
    """Sentences by what identifies a finding; both name files as the repository does."""
    checked: Checked = check([tree / folder], date.today())
    return {_key(each, tree): _said(each, tree) for each in checked.findings}


def _key(each: Grouped, tree: Path) -> Key:
    """With its message: a value that is made worse, or moved and still wrong, is a new finding."""
    one = each.finding
    return (one.rule, one.hop, _short(one.at.where, tree), _short(one.message, tree))


def _said(each: Grouped, tree: Path) -> str:
    one = each.finding
    place = _short(one.at.file, tree) + (f":{one.at.line}" if one.at.line else "")
    return _short(f"{one.rule}: {one.message}; {one.change}", tree) + (f" ({place})" if place else "")


def _short(text: str, tree: Path) -> str:
    return text.replace(f"{tree}/", "")


def _inside(path: str, folder: str) -> bool:
    return folder == "." or PurePosixPath(folder) in PurePosixPath(path).parents
