"""preflight: does the adapter with its base fit the GPU that the spec names? A model that does not fit goes no further."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from serving.fit import EngineFlags
from serving.fit import preflight as estimate
from serving.fit.picture import draw
from tasks.artifacts import Adapter, FitReport
from tasks.engine_contract import engine_version
from tasks.settings import ROOT
from tasks.spec import Release
from tasks.stage import digest_of, stage


class DoesNotFit(Exception):
    """The model would not start on that GPU. `report` has every part."""

    def __init__(self, message: str, report: FitReport) -> None:
        super().__init__(message)
        self.report = report


def check_fit(adapter: Adapter, spec: Release) -> FitReport:
    """Of the engine version that serves. Raises EngineMismatch, and what serving.fit raises for what it does not know."""
    serving = spec.serving
    flags = EngineFlags(
        gpu_memory_utilization=serving.gpu_memory_utilization,
        max_model_len=serving.max_model_len,
        max_num_seqs=serving.max_num_seqs,
        max_loras=serving.max_loras,
        max_lora_rank=serving.max_lora_rank,
    )
    return estimate(
        adapter.base,
        adapter.path,
        gpu=serving.gpu,
        flags=flags,
        base_model=adapter.base_model,
        engine_version=engine_version(spec),
    )


def fit_digest(report: FitReport) -> str:
    return digest_of(asdict(report))


def _key(adapter: Adapter, spec: Release) -> tuple[Any, ...]:
    code = sorted((ROOT / "serving" / "fit").glob("*.*"))
    texts = [path.read_text() for path in code]
    return (adapter.sha256, adapter.base_sha256, spec.serving.model_dump(), engine_version(spec), texts)


def _note(fit: FitReport) -> str:
    left = f"{fit.headroom_bytes / 2**20:,.0f} MiB left, {fit.concurrency_at_max_model_len:.0f} requests of full length"
    return f"{fit.verdict} on {fit.gpu} with vLLM {fit.engine_version}, {left}"


_preflight = stage(
    "preflight",
    key=_key,
    digest=fit_digest,
    note=_note,
    artifact=lambda fit: f"```\n{draw(fit)}\n```\n",
    status=lambda fit: "done" if fit.fits else "rejected",
    retries=0,
)(check_fit)


def preflight(adapter: Adapter, spec: Release) -> FitReport:
    """Raises DoesNotFit, after the report is on record."""
    report = _preflight(adapter, spec)
    if not report.fits:
        changes = ", ".join(change.flag for change in report.changes[:3])
        said = f"{spec.name} on {spec.serving.gpu}: {' '.join(report.reasons)}" + (
            f" Try {changes}." if changes else ""
        )
        raise DoesNotFit(said, report)
    return report
