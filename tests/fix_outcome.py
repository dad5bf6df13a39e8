"""Outcomes of releases made by hand, for the tests of the report. Scores and times follow from positions, not from chance."""

from __future__ import annotations

from dataclasses import replace
from math import exp, sin
from pathlib import Path
from typing import Literal

from evals.gate import GatePolicy, decide
from serving.fit import FitReport
from serving.fit.contract import Contract, Term
from serving.modelcar import Modelcar
from serving.modelcar.model import LayerRef
from serving.rollout.model import Rollout, SideStats, Step
from tasks.artifacts import (
    Adapter,
    Dataset,
    EvalPair,
    ModelVersion,
    Outcome,
    Sample,
    SampleAnswer,
    Split,
    StageRecord,
)
from tasks.lora import TrainingPoint
from tests.fix_tickets import close_pair, first_pair, sha, worse_pair

MIB = 1024**2
Status = Literal["done", "rejected", "inconclusive", "undone", "failed"]


def policy(rule: Literal["superior", "non_inferior"]) -> GatePolicy:
    margin = 0.0 if rule == "superior" else 0.02
    return GatePolicy(rule=rule, margin=margin, floor=0.8, min_case_pass_rate=0.9)


def adapter() -> Adapter:
    curve = tuple(
        TrainingPoint(
            step, 378, 2.6 * exp(-step / 32) + 0.06 + 0.05 * (1 + sin(step * 1.7)) * exp(-step / 160), step * 0.42
        )
        for step in range(3, 379, 3)
    )
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ids = {
        "base_sha256": sha("base"),
        "sha256": sha("adapter"),
        "run_id": sha("run")[:32],
        "dataset_revision": sha("data"),
    }
    folders = {"path": Path("adapter"), "base": Path("base"), "base_model": "SmolLM2-135M-Instruct"}
    return Adapter(r=16, lora_alpha=32, target_modules=modules, curve=curve, **ids, **folders)  # type: ignore[arg-type]


def dataset() -> Dataset:
    rows = {"train": 504, "dev": 128, "test": 320, "replay": 64}
    return Dataset(
        "ticket_router",
        sha("data"),
        tuple(Split(name, Path(f"{name}.jsonl"), sha(name), n) for name, n in rows.items()),
    )


def fit() -> FitReport:
    """Of an L4: the parts, one sequence of 4096 tokens (360 MiB), and 18,100 MiB of headroom."""
    parts = {
        "weights_bytes": 257 * MIB,
        "lora_bytes": 45 * MIB,
        "activation_bytes": 792 * MIB,
        "cuda_graph_bytes": 1150 * MIB,
        "non_torch_bytes": 250 * MIB,
    }
    usable = (sum(parts.values()) // MIB + 360 + 18100) * MIB
    flags = (
        "--dtype=bfloat16",
        "--max-model-len=4096",
        "--gpu-memory-utilization=0.92",
        "--max-num-seqs=256",
        "--enable-lora",
        "--max-loras=2",
        "--max-lora-rank=16",
    )
    return FitReport(
        gpu="nvidia-l4", engine_version="0.32.0", verdict="fits", total_bytes=22800 * MIB, usable_bytes=usable,
        kv_cache_bytes=18460 * MIB, kv_cache_tokens=210_032, headroom_bytes=18100 * MIB, uncertainty_bytes=1143 * MIB,
        max_model_len=4096, max_model_len_fits=8192, max_num_seqs_fits=256, concurrency_at_max_model_len=51.3, host_ram_needed_bytes=3 * 1024 * MIB,
        host_ram_bytes=14 * 1024 * MIB, disk_needed_bytes=900 * MIB, disk_bytes=90 * 1024 * MIB, flags=flags, changes=(),
        reasons=("One sequence of 4096 tokens needs 2.79 GiB on nvidia-l4: headroom 18100 MiB, uncertain by 1143 MiB.",),
        **parts,
    )  # fmt: skip


def contract() -> Contract:
    """Of fit(): the weights came out 20 MiB larger, the KV cache 100 MiB smaller."""
    promised = fit()
    terms = (
        Term("weights_bytes", promised.weights_bytes + promised.lora_bytes, 322 * MIB),
        Term("kv_cache_bytes", promised.kv_cache_bytes, 18360 * MIB),
    )
    return Contract(4096, 4096, True, "0.32.0", "GPU", 51.0, terms, ("A note.",))


def modelcar() -> Modelcar:
    sizes = {
        "model.safetensors": 269_060_552,
        "model-files": 3_581_440,
        "adapters/ticket_router": 19_588_608,
        "": 1_214,
    }
    layers = tuple(LayerRef(f"sha256:{sha(title)}", size, title) for title, size in sizes.items())
    digest = f"sha256:{sha('modelcar')}"
    return Modelcar(
        f"registry.example/models/ticket_router@{digest}",
        digest,
        layers,
        19_594_752,
        sum(sizes.values()),
        f"sha256:{sha('signature')}",
    )


def times(count: int, middle: float) -> tuple[float, ...]:
    return tuple(middle * exp(0.35 * sin(place * 2.3) + (1.4 if place % 29 == 7 else 0)) for place in range(count))


def step(weight: int, stable: int, candidate: int, errors: int = 0) -> Step:
    said = f"{candidate} requests, {errors} failed; median first token 131 ms against 128 ms of stable"
    sides = (
        SideStats("ticket-router-3", stable, 0, times(stable, 0.128)),
        SideStats("ticket-router-4", candidate, errors, times(candidate, 0.131)),
    )
    return Step(weight, *sides, "undo" if errors else "go_on", said, 21.4)


def rollout(
    steps: tuple[Step, ...], outcome: Literal["completed", "undone"] = "completed", reason: str | None = None
) -> Rollout:
    told = reason or f"{len(steps)} steps passed"
    return Rollout(
        "local",
        "ticket_router",
        "ticket_router-8dfb1c2a90ee",
        modelcar().reference,
        "base",
        (2.31, 0.19, 0.17, 0.18),
        steps,
        outcome,
        told,
    )


def sample() -> Sample:
    answers = (
        SampleAnswer(
            "Within how many days may I return it?",
            "Within 30 days of delivery [1].",
            ("docs/returns.md › Time limit", "docs/returns.md › Exchanges"),
        ),
        SampleAnswer(
            "Who pays for the return parcel?", "The shop, when the item is faulty [1].", ("docs/shipping.md › Costs",)
        ),
    )
    return Sample("ticket_router", 42, answers, sha("sample"))


def records(*stages: tuple[str, Status, float, str]) -> tuple[StageRecord, ...]:
    return tuple(
        StageRecord(name, status, seconds, name == "prepare", "" if status == "failed" else sha(name), note)
        for name, status, seconds, note in stages
    )


BEFORE_GATE = (
    ("prepare", "done", 0.031, "4 splits, 1016 items"),
    ("train", "done", 163.4, "378 steps, loss 2.45 → 0.07, rank 16"),
    ("evaluate", "done", 96.1, "0.909 against 0.019 of base on 320 items, 34 of 36 cases"),
)  # fmt: skip
AFTER_GATE = (
    ("register", "done", 1.9, "ticket_router version 1 @candidate"),
    ("preflight", "done", 0.4, "fits on nvidia-l4, 18,100 MiB left, 51 requests of full length"),
    ("build_and_push", "done", 3.2, "sha256:5d0c1f9a2b7e…, 292 MB, 20 MB new, @staging"),
)


def champion() -> Outcome:
    """A first release that went all the way."""
    pair = first_pair()
    stages = (
        *BEFORE_GATE,
        ("judge", "done", 0.2, "passed"),
        *AFTER_GATE,
        ("roll_out", "done", 71.0, "completed: 4 steps passed, @champion"),
        ("sample", "done", 8.8, "2 questions answered"),
    )
    version = ModelVersion(
        "ticket_router", "1", adapter().run_id, "mlflow-artifacts:/1/adapter", sha("version"), ("candidate", "champion")
    )
    decision = decide(pair.candidate, pair.baseline, policy("superior"))
    steps = (step(10, 112, 14), step(25, 64, 24), step(50, 31, 33), step(100, 0, 40))
    return Outcome(
        "20260301-101500-ab12", "ticket_router", Path("evals/ticket_router/release.yaml"), "champion", decision.reasons, records(*stages),
        "1", modelcar().reference, dataset(), adapter(), pair, decision, version, fit(), modelcar(), rollout(steps), contract(), sample(),
    )  # fmt: skip


def rejected(pair: EvalPair | None = None) -> Outcome:
    """Stopped at the gate; version 3 stays champion."""
    pair = pair or worse_pair()
    decision = decide(pair.candidate, pair.baseline, policy("non_inferior"))
    stages = (*BEFORE_GATE, ("judge", "rejected", 0.2, f"rejected: {decision.reasons[0]}"))
    return Outcome(
        "20260302-090000-cd34", "ticket_router", Path("evals/ticket_router/release.yaml"), "rejected", decision.reasons, records(*stages),
        "3", modelcar().reference, dataset(), adapter(), pair, decision,
    )  # fmt: skip


def inconclusive() -> Outcome:
    """The interval reaches below the margin."""
    found = rejected(close_pair())
    stages = (
        *found.stages[:-1],
        replace(found.stages[-1], status="inconclusive", note=f"inconclusive: {found.reasons[0]}"),
    )
    return replace(found, verdict="inconclusive", stages=stages)


def undone() -> Outcome:
    """Undone at 25 percent; there was no champion before."""
    whole = champion()
    steps = (step(10, 112, 14), step(25, 64, 24, errors=5))
    reason = "at 25 %: 5 of 24 candidate requests failed (20.8%), allowed 1.0%"
    stages = (*whole.stages[:7], replace(whole.stages[7], status="undone", note=f"undone: {reason}"))
    found = rollout(steps, "undone", reason)
    told = (f"the rollout was undone {reason}",)
    gone = replace(whole, sample=None, contract=None, champion=None, champion_reference=None)
    return replace(gone, verdict="undone", reasons=told, stages=stages, rollout=found)


def failed() -> Outcome:
    """Broke in training; nothing but the dataset was made."""
    stages = records(
        BEFORE_GATE[0], ("train", "failed", 12.0, "training dialog 7 has 900 tokens, training.max_length is 512")
    )
    reason = "training dialog 7 has 900 tokens, training.max_length is 512; raise it or shorten the item"
    return Outcome(
        "20260303-120000-ef56",
        "ticket_router",
        Path("release.yaml"),
        "failed",
        (reason,),
        stages,
        "3",
        modelcar().reference,
        dataset(),
    )
