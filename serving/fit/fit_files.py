"""A verdict on a model that was read from anywhere: shapes and weights out of ModelFiles, then the estimate.

preflight.py is the same for a folder in a release; this one also takes a model without weight files, and says so.
"""

from dataclasses import replace
from pathlib import Path

from serving.fit.adapter import AdapterShape, check_base, read_adapter
from serving.fit.catalogue import Gpu
from serving.fit.config import parse_config
from serving.fit.estimate import estimate
from serving.fit.flags import EngineFlags
from serving.fit.model_files import ModelFiles
from serving.fit.report import FitReport
from serving.fit.weights import Weights, weights_from_config, weights_from_headers


def fit_files(
    files: ModelFiles, adapters: tuple[Path, ...], gpu: Gpu, flags: EngineFlags, engine_version: str
) -> FitReport:
    """Raises ConfigInvalid, UnsupportedModel, HeaderInvalid, AdapterRefused, FlagsRefused, UnknownEngine."""
    model = parse_config(files.config)
    if files.tensors is None:
        weights = _told_by_index(weights_from_config(model, flags.quantization, files.name), files.index_bytes)
    else:
        weights = weights_from_headers(files.tensors, model, files.file_bytes, flags.quantization)
    shapes: tuple[AdapterShape, ...] = tuple(read_adapter(folder) for folder in adapters)
    for shape in shapes:
        check_base(shape, model, files.names)
    report = estimate(model, weights, shapes, gpu, flags, engine_version)
    return replace(report, reasons=(*report.reasons, f"Read from {files.origin}.")) if files.tensors is None else report


def _told_by_index(weights: Weights, index_bytes: int | None) -> Weights:
    """The index knows the size on disk; where the shapes give another, the band is at least as wide as the gap."""
    if index_bytes is None or not weights.disk_bytes:
        return weights
    gap = abs(index_bytes / weights.disk_bytes - 1)
    largest = min(index_bytes, weights.largest_file_bytes)
    return replace(weights, disk_bytes=index_bytes, largest_file_bytes=largest, band=max(weights.band, gap))
