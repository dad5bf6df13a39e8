"""Verdicts on measured starts and failures of dense, unquantised models on one GPU (tests/data/fit_points.jsonl).

Every line names its public source. Only the GPU is judged here: the machine around it is made roomy.
"""

import re

import pytest

from serving.fit import PINNED_ENGINE, EngineFlags, FitReport, Gpu, estimate, find_gpu
from serving.fit.weights import Weights, weights_bytes
from tests.fix_fit import GIB, bf16_tensors, measured_config, measured_points, roomy_gpu, shape_of

CATALOGUE_NAMES = {
    "L4": "nvidia-l4",
    "L40S": "nvidia-l40s",
    "A100-40GB": "nvidia-a100-40gb",
    "A100 80GB": "nvidia-a100-80gb",
}
POINTS = measured_points()


def name_of(point: dict) -> str:
    return f"{point['model'].rpartition('/')[2]} {point['gpu'][:12]} {point.get('vllm_version')} {point['outcome']}"


def card(point: dict) -> Gpu:
    """As the log reported it; else the catalogue's memory for the card's name; the last point only says 80 GB."""
    if "total_gpu_memory_gib" in point:
        return roomy_gpu(point["total_gpu_memory_gib"])
    known = [name for word, name in CATALOGUE_NAMES.items() if re.match(rf"{word}\b", point["gpu"])]
    return roomy_gpu(find_gpu(known[0] if known else "nvidia-a100-80gb").memory_bytes / GIB)


def engine_of(point: dict) -> str:
    """Versions before 0.11 are judged by the pinned engine: those points fail on weights alone, in any version."""
    version = point.get("vllm_version_assumed") or point.get("vllm_version") or PINNED_ENGINE
    return version.split()[0] if re.match(r"0\.(1[1-9]|[2-9]\d)\.", version) else PINNED_ENGINE


def report(point: dict) -> FitReport:
    """Flags as logged; where they were not given, vLLM's own: larger from 70 GiB on, but not on an A100."""
    gpu, config = card(point), measured_config(point["config"])
    large = gpu.memory_bytes >= 70 * GIB and "A100" not in point["gpu"]
    flags = EngineFlags(
        gpu_memory_utilization=point["gpu_memory_utilization"],
        max_model_len=point["max_model_len"],
        max_num_seqs=1024 if large else 256,
        max_num_batched_tokens=point.get("max_num_batched_tokens") or (8192 if large else 2048),
        enforce_eager=bool(point.get("enforce_eager")),
        max_loras=point.get("max_loras"),
        max_lora_rank=point.get("max_lora_rank"),
    )
    served = weights_bytes(bf16_tensors(config), shape_of(config), 2)
    return estimate(shape_of(config), Weights(served, served, served), (), gpu, flags, engine_of(point))


def test_each_point_has_a_source_and_a_quote() -> None:
    assert len(POINTS) >= 12
    assert all(point["source"] and point["quote"] and point["grade"] in "AB" for point in POINTS)


@pytest.mark.parametrize("point", [p for p in POINTS if p["outcome"] == "starts"], ids=name_of)
def test_what_started_is_not_refused(point) -> None:
    assert report(point).fits


@pytest.mark.parametrize("point", [p for p in POINTS if p["outcome"] != "starts"], ids=name_of)
def test_what_failed_is_never_called_fits(point) -> None:
    assert report(point).verdict != "fits"


@pytest.mark.parametrize("point", [p for p in POINTS if p.get("kv_cache_gib")], ids=name_of)
def test_logged_kv_cache_lies_in_the_band(point) -> None:
    """Also before 0.21, where graphs were outside the budget and the engine gave about 1 GiB more."""
    found = report(point)
    assert abs(found.kv_cache_bytes - point["kv_cache_gib"] * GIB) <= found.uncertainty_bytes


@pytest.mark.parametrize("point", [p for p in POINTS if p.get("kv_cache_gib")], ids=name_of)
def test_kv_cache_error_is_small_against_the_card(point) -> None:
    found = report(point)
    assert abs(found.kv_cache_bytes - point["kv_cache_gib"] * GIB) <= 0.03 * found.total_bytes
