"""How far the estimate was off on starts that were seen: per engine version, GPU and part. Pure.

A residual is actual minus predicted. It is shown beside a verdict, never added to one: a handful of starts on one
model says little of another, and a silent correction could not be traced to a source.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from serving.fit.catalogue import GIB
from serving.fit.contract import Contract, Term

SHOWN = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "cuda_graph_bytes", "non_torch_bytes")


@dataclass(frozen=True)
class Start:
    """One start of an engine that was compared with its estimate."""

    log: str  # sha256 of the log, so that the same log counts once
    engine_version: str  # release only, such as 0.23
    gpu: str
    model: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Residual:
    """Actual minus predicted, in bytes, over `starts` starts."""

    engine_version: str
    gpu: str
    part: str
    starts: int
    median_bytes: int
    least_bytes: int
    most_bytes: int


def start_of(log: str, gpu: str, model: str, engine_version: str, contract: Contract) -> Start:
    return Start(log, minor(engine_version), gpu, model, contract.terms)


def minor(engine_version: str) -> str:
    """0.23.0, v0.23.1rc2 → 0.23: memory changes with minor versions."""
    return ".".join(engine_version.removeprefix("v").split(".")[:2])


def learn(starts: Iterable[Start]) -> tuple[Residual, ...]:
    """One row for each engine version, GPU and part that was seen, in that order."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for start in starts:
        for term in start.terms:
            found.setdefault((start.engine_version, start.gpu, term.name), []).append(term.residual)
    order = sorted(found, key=lambda key: (key[0], key[1], SHOWN.index(key[2])))
    return tuple(
        Residual(*key, len(found[key]), round(median(found[key])), min(found[key]), max(found[key])) for key in order
    )


def note(residuals: Iterable[Residual], gpu: str, engine_version: str) -> str | None:
    """One sentence for `liftlock fit`; None where no start of this version on this GPU was seen."""
    for row in residuals:
        if (row.engine_version, row.gpu, row.part) == (minor(engine_version), gpu, "kv_cache_bytes"):
            return (
                f"{row.starts} start{'s' if row.starts > 1 else ''} of vLLM {row.engine_version} on {gpu} left "
                f"{row.median_bytes / GIB:+.2f} GiB (median; {row.least_bytes / GIB:+.2f} to "
                f"{row.most_bytes / GIB:+.2f}) for the KV cache against the estimate."
            )
    return None
