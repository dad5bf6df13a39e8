"""Measured starts and failures (tests/data/fit_points.jsonl) as inputs of the fit estimate, as far as each source says.

Used by tests/test_serving_fit_points.py and by make bench-fit. What a source leaves open is read in one way for every
point: an unnamed version is V0 where its log has V0's words and else the pinned one, an assumed utilization is the
engine's default, an unnamed card is the one whose reported total is given, an unnamed length is 4096 tokens.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.fit import (
    PINNED_ENGINE,
    EngineFlags,
    FitReport,
    Gpu,
    ModelShape,
    Weights,
    custom_gpu,
    estimate,
    find_gpu,
    parse_config,
    weights_from_config,
)
from serving.fit.engines import find_engine

DATA = Path(__file__).with_name("data")
GIB = 1024**3
LENGTH = 4096  # of the points whose source gives no length at all
# Words of a point's card, tried in this order → name in gpus.yaml, or compute capability and usual total in GiB.
CARDS: tuple[tuple[str, str | tuple[tuple[int, int], float]], ...] = (
    ("2060", ((7, 5), 12.0)), ("3050", ((8, 6), 4.0)), ("5090", "nvidia-geforce-rtx-5090"),
    ("3090", "nvidia-geforce-rtx-3090"), ("4090", "nvidia-geforce-rtx-4090"), ("3060", "nvidia-geforce-rtx-3060"),
    ("PRO 6000", "nvidia-rtx-pro-6000"), ("PRO 5000", ((12, 0), 71.5)), ("GH200", "nvidia-gh200-96gb"),
    ("H200", "nvidia-h200"), ("H20 ", ((9, 0), 139.8)), ("B200", "nvidia-b200"), ("A800", ((8, 0), 79.14)),
    ("A100/H100", "nvidia-a100-80gb"), ("A100-40", "nvidia-a100-40gb"), ("A100-PCIE-40", "nvidia-a100-40gb"),
    ("A100 40", "nvidia-a100-40gb"), ("A100", "nvidia-a100-80gb"), ("H100", "nvidia-h100-80gb"),
    ("80GB", "nvidia-a100-80gb"), ("L40S", "nvidia-l40s"), ("L40", "nvidia-l40"), ("A40", "nvidia-a40"),
    ("L4", "nvidia-l4"), ("A10G", "nvidia-a10g"), ("A10", "nvidia-a10"), ("T4", "nvidia-tesla-t4"),
    ("V100-16", "nvidia-v100-16gb"), ("V100", "nvidia-v100-32gb"), ("48GB", "nvidia-l40s"), ("24GB", "nvidia-a10g"),
    ("MI50", ((9, 0), 31.98)), ("AMD", ((9, 4), 191.98)), ("6GB", ((8, 6), 5.61)),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    row: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.row['model'].rpartition('/')[2][:34]} · {self.row['gpu'][:14]} · {self.version} · {self.row['outcome']}"

    @property
    def scored(self) -> bool:
        """Grade C identifies too little; without a config.json there is nothing to compute from."""
        return self.row["grade"] in "AB" and bool(self.row.get("config"))

    @property
    def source(self) -> str:
        """Where it comes from, without what follows the first mark: the unit that is left out in cross-checks."""
        return str(self.row.get("sweep") or re.split(r"[,;(]", self.row["source"])[0].strip())[:60]

    @property
    def started(self) -> bool:
        return bool(self.row["outcome"] == "starts")

    @cached_property
    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((DATA / "fit_configs" / self.row["config"]).read_text())
        return loaded

    @property
    def version(self) -> str:
        said = str(self.row.get("vllm_version") or "")
        number = re.search(r"\d+\.\d+(\.\w+)*", said)
        if re.search(r"V0|vllm-gfx906", said):
            return f"{number[0]} V0" if number and re.match(r"0\.\d+\.", number[0]) else "0.8 V0"
        if number and re.match(r"0\.\d", number[0]):
            return number[0]
        if "PyTorch activation peak memory takes" in self.row["quote"] or "# GPU blocks" in self.row["quote"]:
            return "0.8 V0"
        if self.row.get("sweep") == "llm-d-planner-empirical":
            return "0.11.0"  # the one that the document names
        return "0.32.0" if said.startswith("2026") or "2026" in said else PINNED_ENGINE

    @cached_property
    def gpu(self) -> Gpu:
        text = f"{self.row['gpu']} {self.row.get('total_gpu_memory_gib') or ''}"
        found = next((card for word, card in CARDS if word in text), "nvidia-a100-80gb")
        gib = self.row.get("total_gpu_memory_gib")
        if isinstance(found, str):
            return find_gpu(found, memory_gib=gib)
        return custom_gpu(gib or found[1], found[0], name=self.row["gpu"][:20])

    @property
    def model(self) -> ModelShape:
        return parse_config(self.config)

    @property
    def weights(self) -> Weights:
        said = self.row.get("quantization") or ""
        word: str | None = said
        if said.startswith("unstated"):
            word = self.row["model"]
        elif "quantization=None" in said:
            word = None
        return weights_from_config(self.model, word, "" if word is None else self.row["config"].removesuffix(".json"))

    @property
    def flags(self) -> EngineFlags:
        row, assumed = self.row, bool(self.row.get("gpu_memory_utilization_assumed"))
        number = None if assumed else row.get("gpu_memory_utilization")
        lora = row.get("lora_registered") or (1 if row.get("lora") else None)
        words = {"fp16": "half", "fp32": "float32"}
        dtype = words.get(row["quantization"], "auto")
        return EngineFlags(
            gpu_memory_utilization=number,
            max_model_len=row.get("max_model_len") or min(LENGTH, self.model.max_position_embeddings),
            max_num_seqs=row.get("max_num_seqs"),
            max_num_batched_tokens=row.get("max_num_batched_tokens"),
            dtype=dtype,
            kv_cache_dtype=row.get("kv_cache_dtype") or "auto",
            max_loras=lora,
            enforce_eager=bool(row.get("enforce_eager")),
            tensor_parallel_size=row["gpu_count_tp"],
            pipeline_parallel_size=row.get("pipeline_parallel") or 1,
            data_parallel_size=row.get("data_parallel") or 1,
            enable_expert_parallel=bool(row.get("enable_expert_parallel")),
            block_size=row.get("block_size") if row.get("block_size") != 16 else None,
        )

    @cached_property
    def report(self) -> FitReport:
        card = Gpu(**(vars(self.gpu) | {"machines": ()}))  # the card alone is judged: the sources do not name the host
        return estimate(self.model, self.weights, (), card, self.flags, self.version)

    @property
    def weights_error(self) -> float | None:
        """Relative to what the engine logged."""
        logged = self.row.get("weights_gib")
        return self.report.weights_bytes / GIB / logged - 1 if logged else None

    @property
    def kv_error(self) -> float | None:
        """Relative to the GPU's memory."""
        logged = self.row.get("kv_cache_gib")
        return (self.report.kv_cache_bytes / GIB - logged) * GIB / self.report.total_bytes if logged else None

    @property
    def in_band(self) -> bool | None:
        logged = self.row.get("kv_cache_gib")
        return abs(self.report.kv_cache_bytes - logged * GIB) <= self.report.uncertainty_bytes if logged else None

    @property
    def generation(self) -> str:
        engine = find_engine(self.version, self.gpu.compute_capability)
        if not engine.v1:
            return "V0"
        if engine.since < (0, 11):
            return "V1 0.8-0.10"
        return "0.11-0.16" if engine.since < (0, 17) else "0.17-0.20" if engine.since < (0, 21) else "0.21-"


def load_points() -> list[Point]:
    return [Point(json.loads(line)) for line in (DATA / "fit_points.jsonl").read_text().splitlines()]
