"""make bench-fit: the GPU-fit estimate against measured vLLM starts and failures, beside the tools people use instead.

Prints weights error, KV-cache error and verdicts for each model family and engine generation, the share of logged KV
caches inside the uncertainty band with each source left out, the time of one verdict, and the rivals on the same points.
Limits: no failed point called "fits"; 95 % of the started ones fits or tight; weights error at most 1 % (median); KV-cache
error at most 3 % of the GPU's memory (median) and 6 % (90th percentile); ahead of each rival; 300 ms a verdict.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from serving.fit import EngineFlags, estimate, find_gpu, parse_config, weights_from_headers
from serving.fit.safetensors_header import parse_header
from tests.bench.figures import Figure, end, flags
from tests.fix_fit import LLAMA_8B, dense_shapes
from tests.fix_fit_points import GIB, Point, load_points

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("hf-mem==0.5.6", "llm-d-planner==0.3.3", "accelerate==1.15.0")
PEERS_VENV = ROOT / ".toolchain/peers-fit"
LIMITS = {"weights_median": 0.01, "kv_median": 0.03, "kv_p90": 0.06, "started_share": 0.95, "verdict_seconds": 0.3}
STORED = {"fp8": ("F8_E4M3", 1), "compressed-tensors": ("I8", 1), "awq": ("I32", 4), "gptq": ("I32", 4)}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def errors(points: Iterable[Point], of: Callable[[Point], float | None]) -> list[float]:
    return [abs(error) for point in points if (error := of(point)) is not None]


def shown(values: list[float], share: float | None = None) -> str:
    if not values:
        return "      -"
    return f"{100 * (statistics.median(values) if share is None else percentile(values, share)):6.2f}%"


def table(points: list[Point], key: Callable[[Point], str], title: str) -> None:
    groups: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        groups[key(point)].append(point)
    print(f"\n{title:<22}   n  weights med  p90     KV med      p90   started fits/tight/no   failed fits/tight/no")
    for name in [*sorted(groups), "all"]:
        part = groups.get(name, points)
        weights, kv = errors(part, lambda p: p.weights_error), errors(part, lambda p: p.kv_error)
        print(
            f"{name:<22} {len(part):3}  {shown(weights)}  {shown(weights, 0.9)}  {shown(kv)}  {shown(kv, 0.9)}"
            f"   {verdicts(part, True):>20}   {verdicts(part, False):>20}"
        )


def verdicts(points: list[Point], started: bool) -> str:
    found = [point.report.verdict for point in points if point.started == started]
    return "/".join(str(found.count(word)) for word in ("fits", "tight", "does_not_fit"))


def left_out(points: list[Point]) -> None:
    """The band against sources that its shares were not looked at with: each source alone, and all without it."""
    sources: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        sources[point.source].append(point)
    print("\nlogged KV cache inside the band, and KV error, by source and with that source left out")
    for name, part in sorted(sources.items(), key=lambda item: -len(item[1])):
        if len(part) < 3:
            continue
        others = [point for point in points if point.source != name]
        print(f"  {name:<44} {covered(part):>9} {shown(errors(part, lambda p: p.kv_error))}"
              f"   others {covered(others):>9} {shown(errors(others, lambda p: p.kv_error))}")  # fmt: skip
    small = [point for part in sources.values() if len(part) < 3 for point in part]
    print(f"  {'sources with one or two points':<44} {covered(small):>9} {shown(errors(small, lambda p: p.kv_error))}")


def covered(points: list[Point]) -> str:
    found = [point.in_band for point in points if point.in_band is not None]
    return f"{sum(found)} of {len(found)}"


def verdict_seconds() -> tuple[int, float]:
    """One verdict from the header of a model with over 1,000 tensors: parse, weights, estimate; the median of five."""
    config = LLAMA_8B | {"num_hidden_layers": 112, "architectures": ["LlamaForCausalLM"]}
    entries, position = {}, 0
    for name, shape in dense_shapes(config).items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    header = json.dumps(entries).encode()
    gpu = find_gpu("nvidia-b200")
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        tensors = parse_header("model.safetensors", header, position)
        model = parse_config(config)
        estimate(model, weights_from_headers(tensors, model), (), gpu, EngineFlags())
        seconds.append(time.perf_counter() - began)
    return len(entries), statistics.median(seconds)


def peer_answers(points: list[Point]) -> dict[str, list[dict[str, Any]]]:
    """Runs the rivals in a process of their own; their packages lie apart from the project's."""
    if not PEERS_VENV.is_dir():
        venv.create(PEERS_VENV, with_pip=True)
    pip = [str(PEERS_VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", *PEERS]
    subprocess.run(pip, check=True)
    packages = next((PEERS_VENV / "lib").glob("python3*/site-packages"))
    # Their dependencies (torch, transformers) are the project's own: the same versions as its tests run with.
    environment = os.environ | {"PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/bench/peers_fit.py")],
        input=json.dumps([asked(point) for point in points]), capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    answers: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def asked(point: Point) -> dict[str, Any]:
    report, row = point.report, point.row
    tp, pp, dp = row["gpu_count_tp"], row.get("pipeline_parallel") or 1, row.get("data_parallel") or 1
    return {
        "model": row["model"],
        "config": point.config,
        "parameters": parameters(point),
        "gib": report.total_bytes / GIB,
        "utilization": report.usable_bytes / report.total_bytes,
        "length": report.max_model_len,
        "tp": tp,
        "pp": pp,
        "dp": dp,
        "ways": tp * pp,
    }


def parameters(point: Point) -> dict[str, int]:
    """What the headers of the checkpoint count, by dtype; a rival reads the same file."""
    weights = point.weights
    quantisation = weights.quantisation
    runtime = quantisation is not None and quantisation.runtime
    loaded = weights.pieces[:-2]  # without what vLLM adds to the files
    found = {"BF16": sum(piece.values for piece in loaded)}
    packed = sum(piece.nbytes for piece in loaded)
    if packed and quantisation is not None:
        dtype, size = STORED.get(quantisation.method, ("U8", 1))
        if quantisation.method == "compressed-tensors" and quantisation.bits < 8:
            dtype, size = "I32", 4
        if runtime:
            found["BF16"] += int(packed * 8 / quantisation.bits)
        else:
            found[dtype] = packed // size
    return found


def peer_row(points: list[Point], answers: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(point, answer) for point, answer in zip(points, answers, strict=True) if "error" not in answer]
    weights = [
        abs(answer["weights"] / point.row["weights_gib"] - 1) for point, answer in pairs if point.row.get("weights_gib")
    ]
    kv = [
        abs(answer["kv"] - point.row["kv_cache_gib"]) * GIB / point.report.total_bytes
        for point, answer in pairs
        if point.row.get("kv_cache_gib")
    ]
    return {
        "answered": len(pairs),
        "weights": weights,
        "kv": kv,
        "failed_called_fits": sum(answer["fits"] and not point.started for point, answer in pairs),
        "started_refused": sum(not answer["fits"] and point.started for point, answer in pairs),
    }


def own_answers(points: list[Point]) -> list[dict[str, Any]]:
    """Tight counts as fits where it started and as refused where it failed: it is not wrong about either."""
    return [
        {
            "weights": point.report.weights_bytes / GIB,
            "kv": point.report.kv_cache_bytes / GIB,
            "fits": point.report.fits if point.started else point.report.verdict == "fits",
        }
        for point in points
    ]


def comparison(rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'estimator':<18} answers  weights med  p90     KV med      p90   failed called fits   started refused")
    for name, row in rows.items():
        print(
            f"{name:<18} {row['answered']:7}  {shown(row['weights'])}  {shown(row['weights'], 0.9)}  {shown(row['kv'])}"
            f"  {shown(row['kv'], 0.9)}   {row['failed_called_fits']:18}   {row['started_refused']:15}"
        )


def told(figures: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[Figure]:
    others = {name: row for name, row in rows.items() if name != "Liftlock"}
    weights, kv = ({name: statistics.median(row[key]) for name, row in others.items()} for key in ("weights", "kv"))
    wrong = {name: float(row["failed_called_fits"]) for name, row in others.items()}
    return [
        Figure(
            "weights error, median", figures["weights_median"], "", "lower", LIMITS["weights_median"], beside=weights
        ),
        Figure("KV error of the memory, median", figures["kv_median"], "", "lower", LIMITS["kv_median"], beside=kv),
        Figure("KV error of the memory, p90", figures["kv_p90"], "", "lower", LIMITS["kv_p90"]),
        Figure("failed points called fits", figures["failed_called_fits"], "", "lower", 0, beside=wrong),
        Figure("started points not refused", figures["started_share"], "", "higher", LIMITS["started_share"]),
        Figure("one verdict", figures["verdict_seconds"], "s", "lower", LIMITS["verdict_seconds"], noise=0.25),
        Figure("estimators that it is not ahead of", len(ahead_of_it(rows)), "", "lower", 0),
    ]


def ahead_of_it(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The estimators that are as good in any of KV error, weights error and wrong verdicts."""
    own, found = rows["Liftlock"], []
    for name, row in rows.items():
        if name == "Liftlock":
            continue
        ahead = statistics.median(own["kv"]) < statistics.median(row["kv"])
        ahead = ahead and statistics.median(own["weights"]) <= statistics.median(row["weights"])
        wrong = own["failed_called_fits"] + own["started_refused"]
        if not ahead or wrong >= row["failed_called_fits"] + row["started_refused"]:
            found.append(name)
    return found


def main() -> int:
    flags(__doc__)
    every = load_points()
    points = [point for point in every if point.scored]
    print(f"{len(points)} of {len(every)} points scored: the others are grade C or have no config.json")
    table(points, lambda point: point.model.family, "family")
    table(points, lambda point: point.generation, "engine generation")
    left_out(points)
    tensors, seconds = verdict_seconds()
    print(f"\none verdict from the header of {tensors} tensors: {1000 * seconds:.0f} ms")
    rows = {"Liftlock": peer_row(points, own_answers(points))}
    for name, answers in peer_answers(points).items():
        rows[name] = peer_row(points, answers)
    comparison(rows)
    own = rows["Liftlock"]
    started = sum(point.started for point in points)
    figures = {
        "weights_median": statistics.median(own["weights"]),
        "kv_median": statistics.median(own["kv"]),
        "kv_p90": percentile(own["kv"], 0.9),
        "failed_called_fits": own["failed_called_fits"],
        "started_share": 1 - own["started_refused"] / started,
        "started_fits": sum(point.report.verdict == "fits" for point in points if point.started),
        "started_tight": sum(point.report.verdict == "tight" for point in points if point.started),
        "verdict_seconds": round(seconds, 4),
    }
    return end("fit", told(figures, rows))


if __name__ == "__main__":
    sys.exit(main())
