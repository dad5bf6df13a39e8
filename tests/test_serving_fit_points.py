"""Verdicts and parts on measured starts and failures (tests/data/fit_points.jsonl); make bench-fit prints the whole table."""

import statistics

import pytest

from tests.fix_fit_points import GIB, Point, load_points

EVERY = load_points()
POINTS = [point for point in EVERY if point.scored]
# Only the engine's own terms are held to these points; forks, V0 with images, and one log that no term explains are not.
OUTLIERS = ("gfx906", "InternVL3", "Llama-3.2-11B-Vision", "unsloth merged")


def name_of(point: Point) -> str:
    return point.name


def test_each_point_has_a_source_and_a_quote() -> None:
    assert len(POINTS) >= 80
    assert all(point.row["source"] and point.row["quote"] and point.row["grade"] in "ABC" for point in EVERY)


@pytest.mark.parametrize("point", [p for p in POINTS if p.started], ids=name_of)
def test_what_started_is_not_refused(point) -> None:
    assert point.report.fits


@pytest.mark.parametrize("point", [p for p in POINTS if not p.started], ids=name_of)
def test_what_failed_is_never_called_fits(point) -> None:
    assert point.report.verdict != "fits"


def test_tight_is_the_exception() -> None:
    verdicts = [point.report.verdict for point in POINTS if point.started]
    assert verdicts.count("tight") <= 0.25 * len(verdicts)


def test_errors_over_all_points() -> None:
    weights = [abs(p.weights_error) for p in POINTS if p.weights_error is not None]
    kv = sorted(abs(p.kv_error) for p in POINTS if p.kv_error is not None)
    assert statistics.median(weights) <= 0.01
    assert statistics.median(kv) <= 0.03
    assert kv[int(0.9 * len(kv))] <= 0.06


@pytest.mark.parametrize(
    "point", [p for p in POINTS if p.generation in ("0.17-0.20",) and p.kv_error is not None], ids=name_of
)
def test_logged_kv_cache_of_the_versions_with_every_term(point) -> None:
    assert abs(point.kv_error) <= 0.01
    assert point.in_band


@pytest.mark.parametrize(
    "point",
    [p for p in POINTS if p.row.get("activation_gib") and p.generation == "0.17-0.20"],
    ids=name_of,
)
def test_logged_activation(point) -> None:
    found = point.report.activation_bytes / GIB
    assert found == pytest.approx(point.row["activation_gib"], rel=0.2)


@pytest.mark.parametrize(
    "point",
    [
        p for p in POINTS
        if p.row.get("max_concurrency") and p.row.get("kv_cache_gib") and p.generation != "V0" and p.row.get("max_model_len")
        and "card not named" not in p.row["gpu"]
    ],
    ids=name_of,
)  # fmt: skip
def test_logged_concurrency_follows_from_the_logged_cache(point) -> None:
    """What one request takes, by vLLM's own division: hybrid and sliding models too. DeepSeek-V4's states are rounder."""
    limit = 0.06 if "V4" in point.row["model"] else 0.03
    per_request = point.report.kv_cache_bytes / point.report.concurrency_at_max_model_len
    logged = point.row["kv_cache_gib"] * GIB / point.row["max_concurrency"]
    assert per_request == pytest.approx(logged, rel=limit)
