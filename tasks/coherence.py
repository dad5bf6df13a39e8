"""Before a release: the gateway that it would serve through passes the coherence check."""

from __future__ import annotations

from pathlib import Path

from serving.coherence.chains import chains
from serving.coherence.check import findings, group
from serving.coherence.objects import read_paths

CLIENT = {"liftlock": "chain", "clients": [{"name": "release", "total": "3600s", "retries": 0}]}


class ChainIncoherent(Exception):
    """The gateway's limits contradict each other."""


def hold_coherent(gateway: Path) -> None:
    """Checks Envoy's files in the folder; does nothing where the gateway is not ours. Raises ChainIncoherent."""
    files = [gateway / name for name in ("lds.json", "rds.json", "cds.json")]
    if not all(each.is_file() for each in files):
        return
    found = read_paths(files)
    found.chains.append(("release", CLIENT))
    wrong = group(findings(chains(found)))
    if wrong:
        said = "; ".join(f"{each.finding.rule}: {each.finding.message}" for each in wrong[:3])
        raise ChainIncoherent(f"the gateway's configuration is incoherent: {said}; see `liftlock coherence {gateway}`")
