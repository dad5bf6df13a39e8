"""preflight: does the adapter with its base fit the GPU that the spec names? A model that does not fit goes no further."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from serving.fit import EngineFlags
from serving.fit import preflight as estimate
from serving.fit.picture import draw
from tasks.artifacts import Adapter, FitReport
from tasks.settings import ROOT
from tasks.spec import Release
from tasks.stage import digest_of, stage


class DoesNotFit(Exception):
    """The model would not start on that GPU."""


def check_fit(adapter: Adapter, spec: Release) -> FitReport:
    """Raises DoesNotFit, and what serving.fit raises for a model or GPU that it does not know."""
    serving = spec.serving
    flags = EngineFlags(
        gpu_memory_utilization=serving.gpu_memory_utilization,
        max_model_len=serving.max_model_len,
        max_num_seqs=serving.max_num_seqs,
        max_loras=serving.max_loras,
        max_lora_rank=serving.max_lora_rank,
    )
    report = estimate(adapter.base, adapter.path, gpu=serving.gpu, flags=flags, base_model=adapter.base_model)
    if not report.fits:
        changes = ", ".join(change.flag for change in report.changes[:3])
        raise DoesNotFit(
            f"{spec.name} on {serving.gpu}: {' '.join(report.reasons)}" + (f" Try {changes}." if changes else "")
        )
    return report


def fit_digest(report: FitReport) -> str:
    return digest_of(asdict(report))


def _key(adapter: Adapter, spec: Release) -> tuple[Any, ...]:
    code = sorted((ROOT / "serving" / "fit").glob("*.*"))
    return (adapter.sha256, adapter.base_sha256, spec.serving.model_dump(), [path.read_text() for path in code])


preflight = stage(
    "preflight",
    key=_key,
    digest=fit_digest,
    note=lambda fit: (
        f"{fit.verdict} on {fit.gpu}, {fit.headroom_bytes / 2**20:,.0f} MiB left, {fit.concurrency_at_max_model_len:.0f} requests of full length"
    ),
    artifact=lambda fit: f"```\n{draw(fit)}\n```\n",
    retries=0,
)(check_fit)
