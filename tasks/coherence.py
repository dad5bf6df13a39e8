"""Before a release: the gateway that it would serve through, and the manifests that it would deliver, pass the coherence check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serving.coherence.chains import chains
from serving.coherence.check import findings, group
from serving.coherence.objects import Inventory, add, read_paths

CLIENT = {"liftlock": "chain", "clients": [{"name": "release", "total": "3600s", "retries": 0}]}


class ChainIncoherent(Exception):
    """The limits on the way to an engine contradict each other."""


def hold_coherent(gateway: Path) -> None:
    """Checks Envoy's files in the folder; does nothing where the gateway is not ours. Raises ChainIncoherent."""
    files = [gateway / name for name in ("lds.json", "rds.json", "cds.json")]
    if not all(each.is_file() for each in files):
        return
    _hold(read_paths(files), "the gateway's configuration is", f"see `liftlock coherence {gateway}`")


def hold_manifests(files: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Of a model's rendered objects by file: route, pool, pods. Raises ChainIncoherent."""
    found = Inventory()
    for name, documents in files.items():
        for document in documents:
            add(found, document, name)
    _hold(found, "the manifests are", "render them with `liftlock render` and see `liftlock coherence`")


def _hold(found: Inventory, what: str, then: str) -> None:
    found.chains.append(("release", CLIENT))
    wrong = group(findings(chains(found)))
    if wrong:
        said = "; ".join(f"{each.finding.rule}: {each.finding.message}" for each in wrong[:3])
        raise ChainIncoherent(f"{what} incoherent: {said}; {then}")
