"""The gateway that a release would serve through, and the manifests that it would deliver, pass the coherence check. A rollback is only told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from serving.coherence.chains import chains
from serving.coherence.check import findings, group
from serving.coherence.objects import Inventory, add, read_paths

Files = Mapping[str, Iterable[Mapping[str, Any]]]
CLIENT = {"liftlock": "chain", "clients": [{"name": "release", "total": "3600s", "retries": 0}]}


class ChainIncoherent(Exception):
    """The limits on the way to an engine contradict each other."""


def hold_coherent(gateway: Path) -> None:
    """Checks Envoy's files in the folder; does nothing where the gateway is not ours. Raises ChainIncoherent."""
    files = [gateway / name for name in ("lds.json", "rds.json", "cds.json")]
    if not all(each.is_file() for each in files):
        return
    if said := _incoherent(read_paths(files)):
        raise ChainIncoherent(f"the gateway's configuration is incoherent: {said}; see `liftlock coherence {gateway}`")


def hold_manifests(files: Files) -> None:
    """Of a model's rendered objects by file: route, pool, pods. Raises ChainIncoherent."""
    if said := _incoherent(_inventory(files)):
        then = "render them with `liftlock render` and see `liftlock coherence`"
        raise ChainIncoherent(f"the manifests are incoherent: {said}; {then}")


def tell_manifests(files: Files, say: Callable[[str], None]) -> None:
    """The same for a rollback, which goes on: what it brings back has served before, and what serves now is worse."""
    if said := _incoherent(_inventory(files)):
        say(f"  the manifests are incoherent, and the rollback goes on: {said}")


def _inventory(files: Files) -> Inventory:
    found = Inventory()
    for name, documents in files.items():
        for document in documents:
            add(found, document, name)
    return found


def _incoherent(found: Inventory) -> str:
    """What is wrong, in a few words; empty where nothing is."""
    found.chains.append(("release", CLIENT))
    wrong = group(findings(chains(found)))
    return "; ".join(f"{each.finding.rule}: {each.finding.message}" for each in wrong[:3])
